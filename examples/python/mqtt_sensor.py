"""A sensor with paho-mqtt: one reading, and an answer to whatever command comes.

mqtt_sensor.py [HOST:PORT [DEVICE]]. LANDFALL_PASSWORD for a gateway that knows its devices, LANDFALL_CA (a PEM file) for TLS.
"""

import os
import sys

import paho.mqtt.client as mqtt

address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:1883"
device = sys.argv[2] if len(sys.argv) > 2 else "thermo-1"
host, port = address.rsplit(":", 1)


def on_connect(client, userdata, flags, reason, properties):
    print(f"{device} is connected: {reason}", flush=True)
    if not reason.is_failure:
        client.subscribe("command///req/#", qos=1)


def on_subscribe(client, userdata, mid, reasons, properties):
    client.publish("telemetry/climate", '{"celsius":20.1}', qos=1)


def on_publish(client, userdata, mid, reason, properties):
    # The acknowledgement says that the message is stored, not merely received.
    print(f"stored: {reason}", flush=True)


def on_message(client, userdata, command):
    # The request is on command///req/{id}/{name}, the answer goes to command///res/{id}/{status}.
    _, _, _, _, command_id, name = command.topic.split("/", 5)
    print(f"command {name}: {command.payload.decode(errors='replace')}", flush=True)
    client.publish(f"command///res/{command_id}/200", f'{{"done":"{name}"}}', qos=1)


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=device, protocol=mqtt.MQTTv5)
client.on_connect, client.on_subscribe = on_connect, on_subscribe
client.on_publish, client.on_message = on_publish, on_message
if password := os.environ.get("LANDFALL_PASSWORD"):
    client.username_pw_set(device, password)
if authority := os.environ.get("LANDFALL_CA"):
    client.tls_set(authority)
client.connect(host, int(port), keepalive=20)
try:
    client.loop_forever()
except KeyboardInterrupt:
    client.disconnect()
