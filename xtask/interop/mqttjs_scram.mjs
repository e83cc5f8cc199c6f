// One client of MQTT.js that shows who it is by SCRAM-SHA-256 (RFC 5802 and 7677), computed here and by Node.js alone, so
// that the broker's arithmetic is checked by somebody else's. `cargo xtask interop` starts it with the folder that
// MQTT.js is installed in, host, port, user, the password, and the password of a second exchange on the same connection.
//
// It prints `accepted`, `again` and `heard TOPIC` as they happen; `refused CODE` where CONNACK says no, `ended CODE` where
// DISCONNECT does. It ends by itself.

import { createHash, createHmac, pbkdf2Sync, randomBytes } from "node:crypto";
import { createRequire } from "node:module";

const [folder, host, port, user, password, secondPassword] = process.argv.slice(2);
const mqtt = createRequire(`${folder}/`)("mqtt");
const METHOD = "SCRAM-SHA-256";

const hmac = (key, text) => createHmac("sha256", key).update(text).digest();
const properties = (text) => ({ authenticationMethod: METHOD, authenticationData: Buffer.from(text) });
const say = (line) => process.stdout.write(`${line}\n`);

// One exchange: what is said first, what answers the broker, and whether the broker knows the password too.
class Exchange {
    constructor(secret) {
        this.secret = secret;
        this.bare = `n=${user.replaceAll("=", "=3D").replaceAll(",", "=2C")},r=${randomBytes(18).toString("base64")}`;
        this.first = `n,,${this.bare}`;
    }

    answer(challenge) {
        const said = Object.fromEntries(challenge.split(",").map((part) => [part[0], part.slice(2)]));
        const bare = `c=${Buffer.from("n,,").toString("base64")},r=${said.r}`;
        const salted = pbkdf2Sync(this.secret, Buffer.from(said.s, "base64"), Number(said.i), 32, "sha256");
        const key = hmac(salted, "Client Key");
        const all = `${this.bare},${challenge},${bare}`;
        const signature = hmac(createHash("sha256").update(key).digest(), all);
        const proof = key.map((byte, place) => byte ^ signature[place]);
        this.expected = `v=${hmac(hmac(salted, "Server Key"), all).toString("base64")}`;
        return `${bare},p=${proof.toString("base64")}`;
    }

    check(verdict, name) {
        const told = verdict?.toString();
        say(told === this.expected ? name : `the broker does not know the password: ${told}`);
    }
}

let exchange = new Exchange(password);
const client = mqtt.connect({
    host,
    port: Number(port),
    protocolVersion: 5,
    clientId: `scram-${process.pid}`,
    reconnectPeriod: 0,
    properties: properties(exchange.first),
});
client.handleAuth = (packet, answered) => {
    const data = packet.properties?.authenticationData;
    if (packet.reasonCode === 0x18) {
        const answer = exchange.answer(data.toString());
        answered(null, { cmd: "auth", reasonCode: 0x18, properties: properties(answer) });
        return;
    }
    exchange.check(data, "again");
    answered();
    client.subscribe(`own/${user}/#`, { qos: 2 }, () => client.publish(`own/${user}/scram`, "x", { qos: 2 }));
};
client.on("connect", (packet) => {
    exchange.check(packet.properties?.authenticationData, "accepted");
    exchange = new Exchange(secondPassword);
    // MQTT.js has no call for it.
    client._sendPacket({ cmd: "auth", reasonCode: 0x19, properties: properties(exchange.first) });
});
client.on("message", (topic) => {
    say(`heard ${topic}`);
    client.end();
});
client.on("disconnect", (packet) => say(`ended ${packet.reasonCode}`));
client.on("error", (error) => say(error.code === undefined ? `failed: ${error}` : `refused ${error.code}`));
client.on("close", () => client.end(true));
