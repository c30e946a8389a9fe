"""A switch in user space between two interfaces: what comes in on one leaves on the other, later.

Usage: slow_link.py ONE OTHER DELAY_MS JITTER_MS DUPLICATE_PERCENT

With jitter, frames overtake each other.
"""
import heapq
import random
import select
import socket
import sys
import time

SOL_PACKET, PACKET_VNET_HDR, ETH_P_ALL, PACKET_OUTGOING = 263, 15, 3, 4
names = sys.argv[1:3]
delay, jitter, duplicate = (float(word) for word in sys.argv[3:6])
sockets = []
for name in names:
    one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    # Frames that the kernel has put together stay so; their head says how to take them apart.
    one.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    one.bind((name, 0))
    one.setblocking(False)
    sockets.append(one)
queue, count = [], 0
while True:
    now = time.monotonic()
    while queue and queue[0][0] <= now:
        _, _, to, frame = heapq.heappop(queue)
        try:
            to.send(frame)
        except OSError:
            pass
    wait = max(0.0, queue[0][0] - now) if queue else 1.0
    for ready in select.select(sockets, [], [], wait)[0]:
        other = sockets[1 - sockets.index(ready)]
        for _ in range(64):
            try:
                frame, address = ready.recvfrom(1 << 17)
            except OSError:
                break
            if address[2] == PACKET_OUTGOING:
                continue
            for _ in range(2 if random.random() * 100 < duplicate else 1):
                count += 1
                due = time.monotonic() + (delay + random.random() * jitter) / 1000
                heapq.heappush(queue, (due, count, other, frame))
