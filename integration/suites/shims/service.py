"""What kafka-python's fixtures import and its package leaves out: a broker that somebody else starts and stops."""


class ExternalService:
    def __init__(self, host, port):
        self.host = host
        self.port = port


class SpawnedService:
    def __init__(self, *_):
        raise RuntimeError("these tests start no brokers of their own")
