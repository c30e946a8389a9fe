"""The part of Docker's library that aiokafka's set-up uses: the broker is the built binary ($STRANDLINE)."""

import os
import pathlib
import shutil
import subprocess
import tempfile


class Broker:
    """A "container" with a broker in it."""

    def __init__(self, environment, volumes):
        certificates = next(iter(volumes))
        self.folder = tempfile.mkdtemp()
        store = os.path.join(self.folder, "server.pem")
        parts = [pathlib.Path(certificates, name).read_text() for name in ("server.key", "server.crt")]
        pathlib.Path(store).write_text("".join(parts))
        plain = "PLAINTEXT://127.0.0.1:%s" % environment["ADVERTISED_PORT"]
        encrypted = "SSL://127.0.0.1:%s" % environment["ADVERTISED_SSL_PORT"]
        settings = {
            "node.id": 0,
            "log.dirs": os.path.join(self.folder, "data"),
            "listeners": f"{plain},{encrypted}",
            "http.listen": "127.0.0.1:0",
            "num.partitions": environment["NUM_PARTITIONS"],
            "ssl.keystore.location": store,
            "ssl.truststore.location": os.path.join(certificates, "ca.crt"),
            "group.initial.rebalance.delay.ms": 0,
        }
        command = [os.environ["STRANDLINE"], "serve"]
        for name, value in settings.items():
            command += ["--set", f"{name}={value}"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def exec_run(self, command, **_):
        # Credentials and ACLs are made by programs inside a container.
        return 1, f"there is no {command}".encode()

    def stop(self):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.folder)


class Certificates:
    """A "container" in which certificates are made by the checkout's own script."""

    def __init__(self, volumes):
        paths = {volume["bind"]: str(path) for path, volume in volumes.items()}
        self.script, self.folder = paths["/gen-ssl-certs.sh"], paths["/ssl_cert"]

    def exec_run(self, _command, **_):
        made = subprocess.run(
            ["bash", self.script], cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        return made.returncode, made.stdout

    def stop(self):
        pass


class models:
    class containers:
        Container = object


class _Client:
    def __init__(self):
        self.containers = self

    def run(self, volumes, environment=None, **_):
        return Broker(environment, volumes) if environment else Certificates(volumes)

    def close(self):
        pass


def from_env():
    return _Client()
