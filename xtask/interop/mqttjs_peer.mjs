// Drives MQTT.js clients: commands as lines of JSON on standard input, answers and events on standard
// output. `cargo xtask interop` starts it with the folder that MQTT.js is installed in;
// `xtask/src/interop/driver.rs` describes the lines.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const mqtt = createRequire(`${process.argv[2]}/`)("mqtt");

// Messages that a client has in flight: MQTT.js itself sets no bound and overruns a Receive Maximum.
const WINDOW = 64;

const clients = new Map();

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

// The options of the way to the broker: WebSocket where there is a path, TLS where there is an authority.
function transport({ path, origin, authority }) {
    const secure = authority !== undefined;
    if (path === undefined) return secure ? { protocol: "mqtts", ca: readFileSync(authority) } : { protocol: "mqtt" };
    const wsOptions = origin === undefined ? {} : { headers: { Origin: origin } };
    if (!secure) return { protocol: "ws", path, wsOptions };
    return { protocol: "wss", path, wsOptions, ca: readFileSync(authority) };
}

// Properties for MQTT.js from those of a command: pairs become lists by name, hexadecimal bytes.
function toProperties(given) {
    const properties = { ...given };
    if (properties.correlationData !== undefined) {
        properties.correlationData = Buffer.from(properties.correlationData, "hex");
    }
    if (properties.payloadFormatIndicator !== undefined) {
        properties.payloadFormatIndicator = properties.payloadFormatIndicator === 1;
    }
    if (properties.userProperties) {
        const byName = {};
        for (const [name, value] of properties.userProperties) (byName[name] ??= []).push(value);
        properties.userProperties = byName;
    }
    return properties;
}

// Properties for an answer or event from those of MQTT.js.
function fromProperties(given) {
    const properties = { ...given };
    if (properties.correlationData !== undefined) {
        properties.correlationData = properties.correlationData.toString("hex");
    }
    if (properties.payloadFormatIndicator !== undefined) {
        properties.payloadFormatIndicator = Number(properties.payloadFormatIndicator);
    }
    if (properties.userProperties) {
        properties.userProperties = Object.entries(properties.userProperties).flatMap(([name, values]) =>
            [values].flat().map((value) => [name, value]),
        );
    }
    if (properties.subscriptionIdentifier !== undefined) {
        properties.subscriptionIdentifier = [properties.subscriptionIdentifier].flat();
    }
    return properties;
}

class Client {
    constructor(number, command) {
        this.number = number;
        this.v5 = command.version === 5;
        // They outlive a connection, so that `reconnect` resumes what was in flight.
        this.stores = {
            incomingStore: new mqtt.Store({ clean: false }),
            outgoingStore: new mqtt.Store({ clean: false }),
        };
    }

    properties(command) {
        return this.v5 ? { properties: toProperties(command.properties) } : {};
    }

    connect(command) {
        const { will } = command;
        this.mqtt = mqtt.connect({
            host: command.host,
            port: command.port,
            ...transport(command),
            protocolId: command.version === 3 ? "MQIsdp" : "MQTT",
            protocolVersion: command.version,
            clientId: command.clientId,
            clean: command.clean,
            keepalive: 60,
            reconnectPeriod: 0,
            resubscribe: false,
            ...this.stores,
            ...this.properties(command),
            ...(will && {
                will: { ...will, payload: Buffer.from(will.payload, "hex"), ...this.properties(will) },
            }),
        });
        this.connecting = command.id;
        this.acknowledged = new Map();
        this.mqtt.on("connect", (packet) => {
            const code = packet.reasonCode ?? packet.returnCode;
            const { sessionPresent } = packet;
            say({ id: this.connecting, code, sessionPresent, properties: fromProperties(packet.properties) });
            this.connecting = undefined;
        });
        this.mqtt.on("packetreceive", (packet) => {
            if (packet.cmd === "puback" || packet.cmd === "pubrec") {
                this.acknowledged.set(packet.messageId, packet.reasonCode ?? 0);
            }
        });
        this.mqtt.on("message", (topic, payload, packet) => {
            const { qos, retain } = packet;
            const properties = fromProperties(packet.properties);
            const message = { topic, payload: payload.toString("hex"), qos, retain, properties };
            say({ client: this.number, message });
        });
        this.mqtt.on("disconnect", (packet) => {
            this.told = packet.reasonCode ?? 0;
        });
        this.mqtt.on("error", (error) => {
            this.error = error;
        });
        this.mqtt.on("close", () => this.closed());
    }

    reconnect(command) {
        this.connecting = command.id;
        this.mqtt.reconnect(this.stores);
    }

    closed() {
        if (this.ending !== undefined) {
            say({ id: this.ending });
            this.ending = undefined;
            return;
        }
        if (this.connecting !== undefined) {
            say({ id: this.connecting, error: `no CONNACK: ${this.error}` });
            this.connecting = undefined;
        }
        say({ client: this.number, closed: this.told ?? null });
        this.told = undefined;
    }

    subscribe(command) {
        const filters = {};
        for (const { filter, qos, noLocal, retainAsPublished, retainHandling } of command.filters) {
            filters[filter] = { qos };
            if (this.v5) {
                const [nl, rap, rh] = [noLocal ?? false, retainAsPublished ?? false, retainHandling ?? 0];
                Object.assign(filters[filter], { nl, rap, rh });
            }
        }
        this.mqtt.subscribe(filters, this.properties(command), (error, _granted, packet) =>
            say(packet ? { id: command.id, codes: packet.granted } : { id: command.id, error: `${error}` }),
        );
    }

    unsubscribe(command) {
        this.mqtt.unsubscribe(command.filters, this.properties(command), (error, packet) =>
            say(error ? { id: command.id, error: `${error}` } : { id: command.id, codes: packet?.granted ?? [] }),
        );
    }

    // Keeps up to WINDOW messages in flight; answers after the last is acknowledged.
    publish(command) {
        const { topic, qos, retain, payloads } = command;
        const codes = [];
        let next = 0;
        let left = payloads.length;
        const one = () => {
            const number = next++;
            let packetId;
            this.mqtt.publish(
                topic,
                Buffer.from(payloads[number], "hex"),
                { qos, retain, ...this.properties(command) },
                (error) => {
                    if (error && error.code === undefined) {
                        if (left > 0) say({ id: command.id, error: `${error}` });
                        left = 0;
                        return;
                    }
                    codes[number] = error?.code ?? this.acknowledged.get(packetId) ?? 0;
                    left -= 1;
                    if (left === 0) say({ id: command.id, codes });
                    else if (next < payloads.length && qos > 0) one();
                },
            );
            if (qos > 0) packetId = this.mqtt.getLastMessageId();
        };
        // QoS 0 is done when it is written, so it needs no window.
        const first = qos > 0 ? Math.min(payloads.length, WINDOW) : payloads.length;
        while (next < first) one();
    }

    disconnect(command) {
        this.ending = command.id;
        const reason = this.v5 ? { reasonCode: command.code ?? 0, ...this.properties(command) } : {};
        this.mqtt.end(false, reason);
    }

    // The connection breaks: nothing is sent before.
    cut(command) {
        this.ending = command.id;
        this.mqtt.stream.destroy();
    }
}

// Breaks every connection; the next case begins with no client.
function reset(command) {
    for (const client of clients.values()) {
        client.mqtt.removeAllListeners();
        client.mqtt.on("error", () => {});
        client.mqtt.end(true);
    }
    clients.clear();
    say({ id: command.id });
}

function obey(command) {
    try {
        if (command.do === "reset") {
            reset(command);
            return;
        }
        if (command.do === "connect") clients.set(command.client, new Client(command.client, command));
        clients.get(command.client)[command.do](command);
    } catch (error) {
        say({ id: command.id, error: `${error}` });
    }
}

createInterface({ input: process.stdin })
    .on("line", (line) => obey(JSON.parse(line)))
    .on("close", () => process.exit(0));
