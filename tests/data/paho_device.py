"""A device made of paho-mqtt.

It connects, subscribes to its commands, publishes one message at each QoS, answers the commands that it is told to wait
for, and disconnects. Each line on stdout is one JSON object that says what happened.
"""

import argparse
import json
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

PATIENCE = 20.0


def tell(what, **more):
    print(json.dumps({"what": what, **more}), flush=True)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--id", required=True)
    parser.add_argument("--version", type=int, choices=(4, 5), required=True)
    parser.add_argument("--websocket", action="store_true")
    parser.add_argument("--ca")
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--user")
    parser.add_argument("--password")
    parser.add_argument("--commands", type=int, default=0, help="answer so many commands, then leave")
    return parser.parse_args()


def main():
    args = arguments()
    client = mqtt.Client(
        CallbackAPIVersion.VERSION2,
        client_id=args.id,
        protocol=args.version,
        transport="websockets" if args.websocket else "tcp",
    )
    if args.ca:
        client.tls_set(ca_certs=args.ca, certfile=args.cert, keyfile=args.key)
    if args.user is not None:
        client.username_pw_set(args.user, args.password)

    connected = threading.Event()
    subscribed = threading.Event()
    published = {}
    answered = threading.Semaphore(0)
    answers = []
    failures = []

    def on_connect(client, userdata, flags, reason, properties):
        tell("connack", reason=str(reason), failure=reason.is_failure)
        if reason.is_failure:
            failures.append(str(reason))
        connected.set()

    def on_subscribe(client, userdata, mid, reasons, properties):
        tell("suback", reasons=[r.value for r in reasons])
        subscribed.set()

    def on_publish(client, userdata, mid, reason, properties):
        published.setdefault(mid, threading.Event()).set()

    def on_message(client, userdata, message):
        tell("message", topic=message.topic, qos=message.qos, payload=message.payload.decode())
        # command///req/{id}/{name} is answered on command///res/{id}/{status}
        command = message.topic.split("/")[4]
        answers.append(client.publish(f"command///res/{command}/200", b'{"echo":' + message.payload + b"}", qos=1))
        answered.release()

    client.on_connect = on_connect
    client.on_subscribe = on_subscribe
    client.on_publish = on_publish
    client.on_message = on_message

    client.connect("localhost", args.port, keepalive=30)
    client.loop_start()
    if not connected.wait(PATIENCE) or failures:
        tell("failed", step="connect")
        return 1
    client.subscribe("command///req/#", qos=1)
    if not subscribed.wait(PATIENCE):
        tell("failed", step="subscribe")
        return 1
    for qos in (0, 1, 2):
        info = client.publish(f"measure/{qos}", json.dumps({"qos": qos}), qos=qos)
        info.wait_for_publish(PATIENCE)
        if not info.is_published():
            tell("failed", step=f"publish at QoS {qos}")
            return 1
        tell("published", qos=qos)
    for _ in range(args.commands):
        if not answered.acquire(timeout=PATIENCE):
            tell("failed", step="command")
            return 1
    # A socket that is closed with an acknowledgement unread is reset, and a DISCONNECT that has not left goes with it.
    for answer in answers:
        answer.wait_for_publish(PATIENCE)
    client.disconnect()
    client.loop_stop()
    tell("done")
    return 0


sys.exit(main())
