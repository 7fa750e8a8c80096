"""Records the cadences of this folder: when datagrams of real programs arrive, and when the files of a build were written.

    record.py words SECONDS     the three senders below, at the same time, one file for each
    record.py files FOLDER      files.txt: the moments at which the files under FOLDER were last written

A file is one interval in ms on each line. What else the machine does is part of the recording.
"""

import hashlib
import os
import select
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def timer(say):
    """Every 2 s by the clock, however long the reading takes."""
    due = time.monotonic()
    while True:
        due += 2
        time.sleep(max(0, due - time.monotonic()))
        with open("/proc/loadavg", encoding="ascii") as load:
            say(load.read())


def work(say):
    """Works for as long as 48 MiB of hashing take, says what came of it, rests for a second."""
    block = os.urandom(1 << 20)
    while True:
        digest = hashlib.sha256()
        for _ in range(48):
            digest.update(block)
        say(digest.hexdigest())
        time.sleep(1)


def once(say):
    """One word by a new process."""
    say("still here")


# A shell that starts a new process for every word, and sleeps for a second between them.
LOOP = "while :; do {python} {script} once {port}; sleep 1; done"


def send(sender, port):
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender(lambda text: out.sendto(text.encode(), ("127.0.0.1", port)))


def words(seconds):
    names = ["timer", "work", "loop"]
    inboxes = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in names]
    children = []
    for name, inbox in zip(names, inboxes):
        inbox.bind(("127.0.0.1", 0))
        port = str(inbox.getsockname()[1])
        if name == "loop":
            command = ["sh", "-c", LOOP.format(python=sys.executable, script=__file__, port=port)]
        else:
            command = [sys.executable, __file__, name, port]
        children.append(subprocess.Popen(command, start_new_session=True))
    heard = {inbox: [] for inbox in inboxes}
    end = time.monotonic() + seconds
    try:
        while (left := end - time.monotonic()) > 0:
            for inbox in select.select(inboxes, [], [], left)[0]:
                inbox.recv(2048)
                heard[inbox].append(time.monotonic_ns() // 1_000_000)
    finally:
        for child in children:
            os.killpg(child.pid, 15)
            child.wait()
    for name, inbox in zip(names, inboxes):
        write(name, heard[inbox])


def files(folder):
    moments = set()
    for at, _, found in os.walk(folder):
        moments.update(os.stat(os.path.join(at, name)).st_mtime_ns // 1_000_000 for name in found)
    # What is written within a quarter of a second is one word.
    heard = []
    for moment in sorted(moments):
        if not heard or moment - heard[-1] >= 250:
            heard.append(moment)
    write("files", heard[-601:])


def write(name, moments):
    with open(os.path.join(HERE, name + ".txt"), "w", encoding="ascii") as out:
        out.writelines(f"{after - before}\n" for before, after in zip(moments, moments[1:]))


if __name__ == "__main__":
    what, value = sys.argv[1:]
    if what == "words":
        words(float(value))
    elif what == "files":
        files(value)
    else:
        send({"timer": timer, "work": work, "once": once}[what], int(value))
