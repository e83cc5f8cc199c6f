"""Drives paho-mqtt clients: commands as lines of JSON on standard input, answers and events on standard output.

`cargo xtask interop` starts it; `xtask/src/interop/driver.rs` describes the lines. Everything happens in one
thread, so an acknowledgement of a message is on its way before the next command is read.
"""

import json
import selectors
import socket
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

VERSIONS = {3: mqtt.MQTTv31, 4: mqtt.MQTTv311, 5: mqtt.MQTTv5}
# The protocol between the driver and xtask uses MQTT.js's names of properties.
RENAMED = {"UserProperty": "userProperties"}

clients = {}


def say(line):
    """Writes one line; `main` flushes."""
    sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")


def to_properties(packet_type, given):
    """Properties for paho from those of a command."""
    properties = Properties(packet_type)
    for name, value in (given or {}).items():
        if name == "userProperties":
            properties.UserProperty = [tuple(pair) for pair in value]
        elif name == "correlationData":
            properties.CorrelationData = bytes.fromhex(value)
        else:
            setattr(properties, name[0].upper() + name[1:], value)
    return properties


def from_properties(properties):
    """Properties for an answer or event from those of paho."""
    if properties is None:
        return {}
    return {RENAMED.get(name, name[0].lower() + name[1:]): value for name, value in properties.json().items()}


def pending(sock):
    """How many bytes the socket holds back that the system does not know of."""
    return sock.pending() if hasattr(sock, "pending") else 0


class Client:
    """One client and the commands that it has not answered yet."""

    def __init__(self, number, command):
        self.number = number
        self.v5 = command["version"] == 5
        self.waiting = {}  # packet identifier, or the name of a packet: how to answer
        self.done = {}  # packet identifier: reason code
        self.publishing = None
        self.open = False
        extra = {} if self.v5 else {"clean_session": command["clean"]}
        self.paho = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=command["clientId"],
            protocol=VERSIONS[command["version"]],
            reconnect_on_failure=False,
            transport="websockets" if "path" in command else "tcp",
            **extra,
        )
        if "path" in command:
            origin = {"Origin": command["origin"]} if "origin" in command else {}
            self.paho.ws_set_options(command["path"], lambda headers: {**headers, **origin})
        if "authority" in command:
            self.paho.tls_set(command["authority"])
        self.paho.on_connect = self.on_connect
        self.paho.on_message = self.on_message
        self.paho.on_publish = self.on_publish
        self.paho.on_subscribe = self.on_acknowledged
        self.paho.on_unsubscribe = self.on_acknowledged
        self.paho.on_disconnect = self.on_disconnect

    def properties(self, packet_type, command):
        return to_properties(packet_type, command.get("properties")) if self.v5 else None

    def connect(self, command):
        will = command.get("will")
        if will:
            properties = self.properties(PacketTypes.WILLMESSAGE, will)
            self.paho.will_set(will["topic"], bytes.fromhex(will["payload"]), will["qos"], will["retain"], properties)
        extra = {}
        if self.v5:
            extra["clean_start"] = command["clean"]
            extra["properties"] = self.properties(PacketTypes.CONNECT, command)
        self.waiting["CONNACK"] = command["id"]
        self.open = True
        self.paho.connect(command["host"], command["port"], keepalive=60, **extra)

    def reconnect(self, command):
        self.waiting["CONNACK"] = command["id"]
        self.open = True
        self.paho.reconnect()

    def read(self):
        """Reads what there is, and what TLS has taken from the socket already: no event tells of that."""
        self.paho.loop_read()
        while pending(self.paho.socket()):
            self.paho.loop_read()

    def on_connect(self, _client, _data, flags, code, properties):
        answer = {"code": code.value, "sessionPresent": flags.session_present}
        say({"id": self.waiting.pop("CONNACK"), "properties": from_properties(properties), **answer})

    def on_message(self, _client, _data, message):
        say({
            "client": self.number,
            "message": {
                "topic": message.topic,
                "payload": message.payload.hex(),
                "qos": message.qos,
                "retain": bool(message.retain),
                "properties": from_properties(getattr(message, "properties", None)),
            },
        })

    def subscribe(self, command):
        filters = []
        for one in command["filters"]:
            options = one["qos"]
            if self.v5:
                options = SubscribeOptions(
                    qos=one["qos"],
                    noLocal=one.get("noLocal", False),
                    retainAsPublished=one.get("retainAsPublished", False),
                    retainHandling=one.get("retainHandling", 0),
                )
            filters.append((one["filter"], options))
        _, packet_id = self.paho.subscribe(filters, properties=self.properties(PacketTypes.SUBSCRIBE, command))
        self.waiting[packet_id] = command["id"]

    def unsubscribe(self, command):
        _, packet_id = self.paho.unsubscribe(command["filters"], self.properties(PacketTypes.UNSUBSCRIBE, command))
        self.waiting[packet_id] = command["id"]

    def on_acknowledged(self, _client, _data, packet_id, codes, _properties):
        say({"id": self.waiting.pop(packet_id), "codes": [code.value for code in codes]})

    def publish(self, command):
        """Hands paho all messages at once, which keeps 20 of them in flight; answers after the last."""
        self.done = {}
        properties = self.properties(PacketTypes.PUBLISH, command)
        sent = []
        for payload in command["payloads"]:
            payload = bytes.fromhex(payload)
            info = self.paho.publish(command["topic"], payload, command["qos"], command["retain"], properties)
            sent.append(info.mid)
        self.publishing = (command["id"], sent)
        self.check_published()

    def on_publish(self, _client, _data, packet_id, code, _properties):
        self.done[packet_id] = code.value
        if self.publishing:
            self.check_published()

    def check_published(self):
        request, sent = self.publishing
        if len(self.done) == len(sent):
            say({"id": request, "codes": [self.done[packet_id] for packet_id in sent]})
            self.publishing = None

    def disconnect(self, command):
        self.waiting["end"] = command["id"]
        reason = ReasonCode(PacketTypes.DISCONNECT, identifier=command.get("code", 0)) if self.v5 else None
        self.paho.disconnect(reason, self.properties(PacketTypes.DISCONNECT, command))

    def cut(self, command):
        """The connection breaks: paho finds its socket closed, nothing is sent before."""
        self.waiting["end"] = command["id"]
        self.paho.socket().shutdown(socket.SHUT_RDWR)
        while self.paho.socket() is not None:
            self.paho.loop_read()

    def on_disconnect(self, _client, _data, flags, code, _properties):
        # paho calls this twice where it cannot write what it has read asks for.
        if not self.open:
            return
        self.open = False
        request = self.waiting.pop("end", None)
        if request is not None:
            say({"id": request})
        else:
            refused = self.waiting.pop("CONNACK", None)
            if refused is not None:
                say({"id": refused, "error": f"no CONNACK: {code}"})
            told = flags.is_disconnect_packet_from_server
            say({"client": self.number, "closed": code.value if told else None})


def reset(command):
    """Breaks every connection; the next case begins with no client."""
    for client in clients.values():
        client.publishing = None
        client.waiting = {}
        if client.paho.socket() is not None:
            client.cut({"id": None})
    clients.clear()
    say({"id": command["id"]})


def obey(command):
    """Does what one line says; what cannot be done is answered with an error."""
    try:
        if command["do"] == "reset":
            reset(command)
            return
        number = command["client"]
        if command["do"] == "connect":
            clients[number] = Client(number, command)
        getattr(clients[number], command["do"])(command)
    except (ValueError, KeyError, AttributeError, OSError, mqtt.MQTTException) as error:
        say({"id": command["id"], "error": f"{type(error).__name__}: {error}"})


def main():
    """Waits for commands and for what the sockets have, until standard input ends."""
    sys.stdout.reconfigure(encoding="utf-8")
    commands = open(0, "rb", buffering=0)
    rest = b""
    while True:
        # Written here, once a round: thousands of messages would be as many writes.
        sys.stdout.flush()
        selector = selectors.DefaultSelector()
        selector.register(commands, selectors.EVENT_READ)
        for client in clients.values():
            sock = client.paho.socket()
            if sock is not None:
                events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.paho.want_write() else 0)
                selector.register(sock, events, client)
        ready = selector.select(timeout=1)
        selector.close()
        for key, events in ready:
            if key.data is None:
                continue
            if events & selectors.EVENT_WRITE:
                key.data.paho.loop_write()
            if events & selectors.EVENT_READ:
                key.data.read()
        for client in clients.values():
            client.paho.loop_misc()
        if any(key.data is None for key, _ in ready):
            data = commands.read(1 << 20)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                obey(json.loads(line))


main()
