"""The attacks of `integration/hostile` on a broker of either kind, each on one that was just started; what it did is printed, a line each.

    attacks.py strandline BINARY [ATTACK...]      attacks Strandline
    attacks.py kafka LIBS [ATTACK...]             attacks Apache Kafka, whose jars are in the folder LIBS (heap of 1 GiB)

Needs root for what takes mounts (a full disk, a read-only one). `docs/operating/limits.md` keeps what came out.
"""
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

import zstandard

from records import sealed, varint

KIND, WHERE = sys.argv[1:3]
# Disks are small here.
SMALL = ["log.dirs.min.free.bytes=0"] if KIND == "strandline" else []


def batch(size, codec=0):
    body = b"\0\0\0\1" + varint(size) + b"v" * size + b"\0"
    body = varint(len(body)) + body
    if codec == 4:
        body = zstandard.compress(body)
    now = int(time.time() * 1000)
    rest = struct.pack(">hiqqqhii", codec, 0, now, now, -1, -1, -1, 1) + body
    return sealed(0, rest)


def string(text):
    return struct.pack(">h", len(text)) + text.encode()


def head(key, version, client="a"):
    return struct.pack(">hhi", key, version, 7) + string(client)


def framed(body):
    return struct.pack(">i", len(body)) + body


def produce(topic, records):
    return head(0, 7) + struct.pack(">hhii", -1, -1, 10_000, 1) + string(topic) + struct.pack(">iii", 1, 0, len(records)) + records


def fetch(topic, offset, wait, least, most):
    body = struct.pack(">iiiib", -1, wait, least, most, 0) + struct.pack(">i", 1) + string(topic)
    return head(1, 4) + body + struct.pack(">iiqi", 1, 0, offset, most)


def fetch_tagged(topic, size):
    """Version 12 with a tagged field that nobody knows."""
    def unsigned(number):
        out = b""
        while number > 127:
            out, number = out + bytes([number & 127 | 128]), number >> 7
        return out + bytes([number])

    wait = 2**31 - 1
    name = unsigned(len(topic) + 1) + topic.encode()
    partition = struct.pack(">iiqiqi", 0, -1, 0, -1, -1, 1 << 20) + b"\0"
    body = struct.pack(">iiiibii", -1, wait, wait, 1 << 20, 0, 0, -1) + b"\2" + name + b"\2" + partition + b"\0\1\1"
    return head(1, 12) + b"\0" + body + b"\1" + unsigned(77) + unsigned(size) + bytes(size)


def create(topic, partitions):
    return head(19, 2) + struct.pack(">i", 1) + string(topic) + struct.pack(">ihiiib", partitions, 1, 0, 0, 30_000, 0)


def metadata(topics):
    return head(3, 4) + struct.pack(">i", len(topics)) + b"".join(map(string, topics)) + b"\1"


def heartbeat():
    return head(12, 0) + string("g") + struct.pack(">i", 1) + string("m")


def receive(connection, size):
    parts = []
    while size:
        part = connection.recv(min(size, 1 << 20))
        if not part:
            raise ConnectionError("closed")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


class Wire:
    def __init__(self, port, patience=60, source=None):
        self.socket = socket.create_connection(("127.0.0.1", port), patience, source_address=source)

    def ask(self, body):
        self.socket.sendall(framed(body))
        return receive(self.socket, struct.unpack(">i", receive(self.socket, 4))[0])

    def produced(self, topic, records):
        answer = self.ask(produce(topic, records))
        return struct.unpack_from(">h", answer, 4 + 4 + 2 + len(topic) + 4 + 4)[0]

    def created(self, topic, partitions=1):
        answer = self.ask(create(topic, partitions))
        return struct.unpack_from(">h", answer, 4 + 4 + 4 + 2 + len(topic))[0]

    def fetched(self, topic, offset=0):
        """The error, the high watermark, and how many bytes came."""
        answer = self.ask(fetch(topic, offset, 100, 1, 50 << 20))
        at = 4 + 4 + 4 + 2 + len(topic) + 4
        _, error, high, _, aborted = struct.unpack_from(">ihqqi", answer, at)
        return error, high, len(answer) - at - 30


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Broker:
    last = None

    def __init__(self, folder, dirs=None, prefix=(), settings=()):
        self.folder, self.dirs, self.prefix, self.settings = folder, dirs or [folder + "/data"], list(prefix), list(settings)
        self.port, self.http, self.controller = free_port(), free_port(), free_port()
        Broker.last = self
        self.start()

    def words(self):
        dirs = ",".join(self.dirs)
        if KIND == "strandline":
            words = [f"log.dirs={dirs}", f"listeners=PLAINTEXT://127.0.0.1:{self.port}", f"http.listen=127.0.0.1:{self.http}"]
            words += self.settings
            return [WHERE, "serve"] + [word for setting in words for word in ("--set", setting)]
        file = self.folder + "/server.properties"
        settings = [
            "process.roles=broker,controller", "node.id=1", f"controller.quorum.voters=1@127.0.0.1:{self.controller}",
            "controller.listener.names=CONTROLLER", f"log.dirs={dirs}", "offsets.topic.replication.factor=1",
            f"listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller}",
            "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT", *self.settings,
        ]
        with open(file, "w") as out:
            out.write("\n".join(settings))
        java = ["java", "-Xms256m", "-Xmx1g", "-XX:+UseG1GC", "-cp", f"{WHERE}/*"]
        logging = os.environ.get("LOG4J")
        java += [f"-Dlog4j2.configurationFile={logging}"] if logging else []
        if not os.path.exists(self.dirs[0] + "/meta.properties"):
            tool = java + ["kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c", file, "--ignore-formatted"]
            subprocess.run(tool, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return java + ["kafka.Kafka", file]

    def start(self, patience=60):
        """Whether it serves."""
        self.log = open(self.folder + "/log", "ab")
        self.process = subprocess.Popen(self.prefix + self.words(), stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)
        begun = time.time()
        while time.time() - begun < patience:
            if self.process.poll() is not None:
                return False
            try:
                Wire(self.port, 5).ask(metadata([]))
                time.sleep(1)
                return True
            except OSError:
                time.sleep(0.1)
        return False

    def rss(self):
        try:
            with open(f"/proc/{self.process.pid}/status") as status:
                return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmRSS"))
        except (OSError, StopIteration):
            return 0

    def state(self):
        code = self.process.poll()
        return "runs" if code is None else f"ended with {code}"

    def topic(self, name, partitions=1):
        for _ in range(100):
            code = Wire(self.port).created(name, partitions)
            if code in (0, 36):
                break
            time.sleep(0.1)
        small = batch(100)
        wire = Wire(self.port)
        for _ in range(100):
            if wire.produced(name, small) == 0:
                return
            time.sleep(0.1)

    def stop(self, how=signal.SIGTERM, patience=60):
        begun = time.time()
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                return f"killed after {patience} s"
        return f"{time.time() - begun:.1f} s"


class Beside:
    """One that asks something small over and over, and notes how long each took."""

    def __init__(self, broker, ask):
        self.took, self.bad, self.stop = [], [], False
        self.thread = threading.Thread(target=self.run, args=(broker, ask), daemon=True)
        self.thread.start()

    def run(self, broker, ask):
        wire = None
        while not self.stop:
            begun = time.time()
            try:
                wire = wire or Wire(broker.port, 30)
                code = ask(wire)
                if code:
                    self.bad.append(code)
            except OSError as error:
                wire = None
                self.bad.append(type(error).__name__)
                time.sleep(0.1)
            self.took.append(time.time() - begun)
            time.sleep(0.005)

    def end(self, what):
        self.stop = True
        self.thread.join(40)
        took = sorted(self.took) or [0]
        p99, most = took[len(took) * 99 // 100 if len(took) > 1 else 0], took[-1]
        kinds = {kind: self.bad.count(kind) for kind in set(self.bad)}
        return f"{what} beside it: {len(took)}, p99 {p99 * 1000:.0f} ms, longest {most * 1000:.0f} ms, errors {kinds or 'none'}"


def producer(broker, topic):
    small = batch(1000)
    return Beside(broker, lambda wire: wire.produced(topic, small))


def closed(connections):
    count = 0
    for connection in connections:
        connection.setblocking(False)
        try:
            count += connection.recv(1) == b""
        except BlockingIOError:
            pass
        except OSError:
            count += 1
        connection.setblocking(True)
    return count


def send_some(connection, data, seconds):
    """As much as is taken within some seconds."""
    connection.settimeout(seconds)
    try:
        connection.sendall(data)
        return True
    except OSError:
        return False


def waiting_fetches(folder):
    broker = Broker(folder)
    broker.topic("empty")
    broker.topic("t")
    before, beside = broker.rss(), producer(broker, "t")
    request = framed(fetch_tagged("empty", 88 << 20))
    wires = [Wire(broker.port) for _ in range(3)]
    taken = sum(send_some(wire.socket, request, 15) for wire in wires)
    time.sleep(5)
    during = broker.rss()
    told = beside.end("a producer")
    gone = closed([wire.socket for wire in wires])
    for wire in wires:
        wire.socket.close()
    time.sleep(5)
    print(f"{taken} of 3 taken, {gone} closed; {before} MB before, {during} with them, {broker.rss()} after; {told}; {broker.state()}")
    broker.stop()


def half_sent(folder):
    broker = Broker(folder)
    broker.topic("t")
    before, beside, size = broker.rss(), producer(broker, "t"), 50 << 20
    data = struct.pack(">i", size) + head(0, 7) + bytes(size - 2000)
    wires = [Wire(broker.port) for _ in range(20)]
    threads = [threading.Thread(target=send_some, args=(wire.socket, data, 5)) for wire in wires]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    during = broker.rss()
    time.sleep(70)
    told, gone, later = beside.end("a producer"), closed([wire.socket for wire in wires]), broker.rss()
    for wire in wires:
        wire.socket.close()
    time.sleep(5)
    print(f"{before} MB before, {during} with 20, {later} and {gone} closed after 75 s, {broker.rss()} after they went; {told}; {broker.state()}")
    broker.stop()


def slow_reader(folder):
    broker = Broker(folder)
    broker.topic("t")
    wire, large = Wire(broker.port), batch(1_000_000)
    for _ in range(40):
        assert wire.produced("t", large) == 0
    before, begun, got = broker.rss(), time.time(), 0
    # A window as small as that of a slow line.
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    reader.connect(("127.0.0.1", broker.port))
    reader.settimeout(60)
    reader.sendall(framed(fetch("t", 0, 100, 1, 60 << 20)))
    size, most = struct.unpack(">i", receive(reader, 4))[0], before
    while got < size:
        part = reader.recv(40_000)
        if not part:
            break
        got += len(part)
        most = max(most, broker.rss())
        time.sleep(max(0, got / 400_000 - (time.time() - begun)))
    print(f"{got / 1e6:.1f} of {size / 1e6:.1f} MB after {time.time() - begun:.0f} s; {before} MB before, {most} at most")
    broker.stop()


def many_connections(folder):
    broker = Broker(folder, prefix=["prlimit", "--nofile=512:512"])
    broker.topic("t")
    beside = producer(broker, "t")
    time.sleep(1)
    wires, refused = [], 0
    for _ in range(600):
        try:
            wires.append(socket.create_connection(("127.0.0.1", broker.port), 2))
        except OSError:
            refused += 1
    time.sleep(5)
    told, gone = beside.end("a producer that was there"), closed(wires)
    try:
        new = Wire(broker.port, 5).produced("t", batch(100))
    except OSError as error:
        new = type(error).__name__
    for wire in wires:
        wire.close()
    begun, again = time.time(), None
    while time.time() - begun < 30 and again != 0 and broker.process.poll() is None:
        try:
            again = Wire(broker.port, 5).produced("t", batch(100))
        except OSError:
            time.sleep(0.1)
    recovered = f"{time.time() - begun:.1f} s" if again == 0 else "never"
    print(f"{refused} refused, {gone} of {len(wires)} closed, a new one gets {new}; served again after {recovered}; {told}; {broker.state()}")
    broker.stop()


def many_partitions(folder):
    broker = Broker(folder, prefix=["prlimit", "--nofile=1024:1024"])
    broker.topic("t")
    beside, begun = producer(broker, "t"), time.time()
    try:
        code = Wire(broker.port, 40).created("large", 2000)
    except OSError as error:
        code = type(error).__name__
    took = time.time() - begun
    time.sleep(10)
    told, state = beside.end("a producer"), broker.state()
    broker.stop()
    served = broker.start(40)
    after = "-"
    if served:
        try:
            after = Wire(broker.port, 20).produced("t", batch(100))
        except OSError as error:
            after = type(error).__name__
    print(f"CreateTopics {code} after {took:.1f} s; {told}; {state}; after a restart: {'it serves' if served else 'it does not start'}, produce {after}, {broker.state()}")
    broker.stop()


def fill(path):
    with open(path, "ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                pass


def attempt(question):
    begun = time.time()
    try:
        answer = question()
    except OSError as error:
        answer = type(error).__name__
    return f"{answer} after {time.time() - begun:.1f} s"


def full_disk(folder):
    volume = folder + "/volume"
    os.makedirs(volume)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", volume], check=True)
    try:
        broker = Broker(folder, dirs=[volume + "/data"], settings=SMALL)
        broker.topic("t")
        fill(volume + "/filling")
        records, codes, wire = batch(20_000), [], Wire(broker.port, 20)
        for _ in range(20):
            codes.append(attempt(lambda: wire.produced("t", records)).split()[0])
        made = attempt(lambda: Wire(broker.port, 20).created("new"))
        read = attempt(lambda: Wire(broker.port, 20).fetched("t")[0])
        time.sleep(3)
        state = broker.state()
        stopped = broker.stop()
        fill(volume + "/filling")
        served = broker.start(40)
        after = attempt(lambda: Wire(broker.port, 20).fetched("t")[0]) if served else "-"
        os.remove(volume + "/filling")
        freed = attempt(lambda: Wire(broker.port, 20).produced("t", records)) if broker.process.poll() is None else "-"
        print(f"produce {sorted(set(codes))}, create {made}, fetch {read}, {state}; stopped in {stopped}; restart {'serves' if served else 'does not serve, ' + broker.state()}, fetch {after}; with room: produce {freed}")
        broker.stop()
    finally:
        subprocess.run(["umount", "-l", volume])


def removed_folder(folder):
    broker = Broker(folder)
    broker.topic("t")
    small, wire, acked, codes = batch(100), Wire(broker.port, 20), 0, []
    shutil.rmtree(folder + "/data", ignore_errors=True)
    begun = time.time()
    first = None
    while time.time() - begun < 8:
        try:
            code = wire.produced("t", small)
        except OSError as error:
            code = type(error).__name__
            codes.append(code)
            break
        if code == 0:
            acked += 1
        else:
            first = first or time.time() - begun
            codes.append(code)
        time.sleep(0.005)
    time.sleep(3)
    print(f"{acked} acknowledged (acks=all) within 8 s, the first refusal {f'{first:.2f} s' if first else 'never'} {sorted(set(map(str, codes)))}; {broker.state()}")
    broker.stop()


def read_only(folder):
    volume, image = folder + "/volume", folder + "/image"
    os.makedirs(volume)
    run = lambda words: subprocess.run(words.split(), check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    run(f"truncate -s 300M {image}")
    run(f"mkfs.ext4 -q -F {image}")
    run(f"mount -o loop,errors=remount-ro {image} {volume}")
    try:
        broker = Broker(folder, dirs=[folder + "/data", volume + "/data"], settings=SMALL)
        names = ["a", "b", "c", "d"]
        for name in names:
            broker.topic(name)
        gone = [name for name in names if os.path.exists(f"{volume}/data/{name}-0")]
        left = [name for name in names if name not in gone]
        wire = Wire(broker.port, 20)
        acked = 1 + sum(wire.produced(gone[0], batch(1000)) == 0 for _ in range(200))
        beside = producer(broker, left[0])
        device = run(f"findmnt -n -o SOURCE {volume}").replace("/dev/", "")
        with open(f"/sys/fs/ext4/{device}/trigger_fs_error", "w") as file:
            file.write("1")
        begun, codes = time.time(), []
        while time.time() - begun < 5:
            code = attempt(lambda: wire.produced(gone[0], batch(1000))).split()[0]
            acked += code == "0"
            codes.append(code)
            time.sleep(0.01)
        read = attempt(lambda: Wire(broker.port, 20).fetched(gone[0])[0])
        told, state, stopped = beside.end("a producer on another disk"), broker.state(), broker.stop()
        served = broker.start(40)
        other = attempt(lambda: Wire(broker.port, 20).produced(left[0], batch(10))) if served else "-"
        state_ro = broker.state()
        broker.stop(signal.SIGKILL)
        run(f"umount -l {volume}")
        time.sleep(2)
        subprocess.run(["e2fsck", "-f", "-p", image], stdout=subprocess.DEVNULL)
        run(f"mount -o loop {image} {volume}")
        again = broker.start(60)
        found = (-1, 0, 0)
        for _ in range(40 if again else 0):
            found = Wire(broker.port, 20).fetched(gone[0])
            if found[:1] == (0,) and found[1] >= acked:
                break
            time.sleep(0.5)
        high = f"error {found[0]}, {found[1]}"
        print(f"produce {sorted(set(codes))}, fetch {read}, {told}, {state}, stopped in {stopped}; restart while read-only: {'serves' if served else 'does not serve'} ({state_ro}), other disk: produce {other}; mended: {high} records of {acked} acknowledged")
        broker.stop()
    finally:
        subprocess.run(["umount", "-l", volume])


def bombs(folder):
    broker = Broker(folder)
    broker.topic("t")
    # A record of zeros, as the stories make it; its checksum is that of what is sent.
    size = 200 << 20
    body = b"\0\0\0\1" + varint(size) + bytes(size) + b"\0"
    packed = zstandard.compress(varint(len(body)) + body)
    now = int(time.time() * 1000)
    rest = struct.pack(">hiqqqhii", 4, 0, now, now, -1, -1, -1, 1) + packed
    bomb = sealed(0, rest)
    del body
    before, codes, most = broker.rss(), [], [0]
    beats = Beside(broker, lambda wire: 0 if wire.ask(heartbeat()) else 1)
    time.sleep(1)
    ask = lambda: codes.extend(attempt(lambda: Wire(broker.port, 120).produced("t", bomb)) for _ in range(20))
    threads = [threading.Thread(target=ask) for _ in range(8)]
    begun = time.time()
    [thread.start() for thread in threads]
    while any(thread.is_alive() for thread in threads):
        most[0] = max(most[0], broker.rss())
        time.sleep(0.05)
    took = time.time() - begun
    print(f"{len(bomb)} bytes each, {len(codes)} of them, the last {sorted(codes)[-1]}; all after {took:.1f} s; {before} MB before, {most[0]} at most; {beats.end('a heartbeat')}; {broker.state()}")
    broker.stop()


def parked_fetch(folder):
    broker = Broker(folder)
    broker.topic("empty")
    wire = Wire(broker.port)
    wire.socket.sendall(framed(fetch("empty", 1, 2**31 - 1, 2**31 - 1, 1 << 20)))
    time.sleep(1)
    print(f"SIGTERM: {broker.stop()}, {broker.state()}")


def asked_topics(folder):
    broker = Broker(folder, settings=["num.partitions=1"])
    broker.topic("t")
    before, beside, begun = broker.rss(), producer(broker, "t"), time.time()
    first = attempt(lambda: len(Wire(broker.port, 120).ask(metadata([f"n{n}" for n in range(2000)]))))
    time.sleep(10)
    names = Wire(broker.port, 60).ask(head(3, 4) + struct.pack(">i", -1) + b"\0")
    made = sum(f"n{n}".encode() in names for n in range(1000, 2000)) + sum(string(f"n{n}") in names for n in range(1000))
    told = beside.end("a producer")
    print(f"answered {first.split(' ', 1)[1]}, {made} topics after {time.time() - begun:.0f} s; {before} MB before, {broker.rss()} after; {told}; {broker.state()}")
    broker.stop()


ATTACKS = [waiting_fetches, half_sent, slow_reader, many_connections, many_partitions, full_disk, removed_folder, read_only, bombs, parked_fetch, asked_topics]
for attack in ATTACKS:
    if len(sys.argv) > 3 and attack.__name__ not in sys.argv[3:]:
        continue
    place = tempfile.mkdtemp(prefix="attacked-")
    print(f"{KIND}: {attack.__name__}: ", end="", flush=True)
    try:
        attack(place)
    except Exception as error:  # The next one is on another broker.
        print(f"failed: {type(error).__name__}: {error}")
        raise
    finally:
        if Broker.last:
            Broker.last.stop(signal.SIGKILL)
        if os.environ.get("KEEP") is None:
            shutil.rmtree(place, ignore_errors=True)
