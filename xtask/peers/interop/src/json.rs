//! Messages, options and answers as they stand in the lines.

use mqtt_client::{
    Filter, Message, MessageProperties, Options, ProtocolVersion, QoS, Received, RetainHandling,
    ServerInfo, SubscribeOptions, SubscriptionIdentifier,
};
use serde_json::{Map, Value, json};

use super::Failure;

/// The way, the version, the session and the will that a command asks for.
pub(super) fn options(command: &Value) -> Result<Options, Failure> {
    let version = match command["version"].as_u64() {
        Some(3) => ProtocolVersion::V3_1,
        Some(4) => ProtocolVersion::V3_1_1,
        Some(5) => ProtocolVersion::V5,
        other => return Err(format!("version {other:?}").into()),
    };
    let is_clean = command["clean"].as_bool().unwrap_or(true);
    let mut options = Options::new(text(command, "host")?, small(command, "port")?)
        .version(version)
        .client_id(text(command, "clientId")?)
        .clean_start(is_clean)
        .adopt_session(!is_clean)
        // Nobody waits for room, and nothing is dropped.
        .queue_capacity(1 << 17)
        .unreliable_capacity(1 << 17);
    if let Some(will) = command.get("will") {
        let properties = message_properties(&will["properties"])?;
        let delay = whole(&will["properties"], "willDelayInterval")?;
        options = options.will(message(will, properties)?, delay);
    }
    let properties = &command["properties"];
    if let Some(seconds) = whole(properties, "sessionExpiryInterval")? {
        options = options.session_expiry_interval(seconds);
    }
    if let Some(size) = whole(properties, "maximumPacketSize")? {
        options = options.maximum_packet_size(size);
    }
    if properties.get("receiveMaximum").is_some() {
        options = options.receive_maximum(small(properties, "receiveMaximum")?);
    }
    if properties.get("topicAliasMaximum").is_some() {
        options = options.topic_alias_maximum(small(properties, "topicAliasMaximum")?);
    }
    for (name, value) in user_properties(properties)? {
        options = options.user_property(name, value);
    }
    Ok(options)
}

/// A message with its payload, or with none where the payloads stand apart.
pub(super) fn message(from: &Value, properties: MessageProperties) -> Result<Message, Failure> {
    let payload = bytes(from["payload"].as_str().unwrap_or_default())?;
    let message = Message::new(text(from, "topic")?, payload)?
        .qos(quality(from)?)
        .retain(from["retain"].as_bool().unwrap_or(false));
    Ok(message.properties(properties))
}

/// Topic aliases are the library's own affair, and are not among them.
pub(super) fn message_properties(from: &Value) -> Result<MessageProperties, Failure> {
    let data = from["correlationData"].as_str().map(bytes).transpose()?;
    let string = |name: &str| from[name].as_str().map(str::to_owned);
    Ok(MessageProperties {
        payload_format_utf8: from["payloadFormatIndicator"].as_u64().map(|it| it == 1),
        message_expiry_interval: whole(from, "messageExpiryInterval")?,
        content_type: string("contentType"),
        response_topic: string("responseTopic"),
        correlation_data: data.map(Into::into),
        user_properties: user_properties(from)?,
        ..MessageProperties::default()
    })
}

/// The filters of a SUBSCRIBE.
pub(super) fn filters(command: &Value) -> Result<Vec<Filter>, Failure> {
    let filters = command["filters"].as_array().ok_or("no filters")?;
    let filters = filters.iter().map(|from| {
        let flag = |name: &str| from[name].as_bool().unwrap_or(false);
        let handling = match from["retainHandling"].as_u64() {
            None | Some(0) => RetainHandling::Always,
            Some(1) => RetainHandling::IfNew,
            Some(_) => RetainHandling::Never,
        };
        let filter = Filter::new(text(from, "filter")?)?.qos(quality(from)?);
        let filter = filter.no_local(flag("noLocal"));
        let filter = filter.retain_as_published(flag("retainAsPublished"));
        Ok(filter.retain_handling(handling))
    });
    filters.collect()
}

/// The properties of a SUBSCRIBE.
pub(super) fn subscribe_options(command: &Value) -> Result<SubscribeOptions, Failure> {
    let properties = &command["properties"];
    let mut options = SubscribeOptions::new();
    if let Some(number) = whole(properties, "subscriptionIdentifier")? {
        let identifier = SubscriptionIdentifier::new(number).ok_or("no such identifier")?;
        options = options.identifier(identifier);
    }
    for (name, value) in user_properties(properties)? {
        options = options.user_property(name, value);
    }
    Ok(options)
}

/// What the server said when it accepted a connection.
pub(super) fn connack(id: &Value, server: &ServerInfo, asked: &str) -> Value {
    let mut properties = Map::new();
    if asked.is_empty() {
        properties.insert(
            "assignedClientIdentifier".into(),
            server.client_id.as_str().into(),
        );
    }
    json!({"id": id, "code": 0, "sessionPresent": server.session_present, "properties": properties})
}

/// The event of a message.
pub(super) fn received(client: u64, message: &Received) -> Value {
    let from = message.property();
    let mut properties = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        properties.extend(value.map(|value| (name.to_owned(), value)));
    };
    put(
        "payloadFormatIndicator",
        from.payload_format_utf8.map(|it| u8::from(it).into()),
    );
    put(
        "messageExpiryInterval",
        from.message_expiry_interval.map(Into::into),
    );
    put("contentType", from.content_type.as_deref().map(Into::into));
    put(
        "responseTopic",
        from.response_topic.as_deref().map(Into::into),
    );
    put(
        "correlationData",
        from.correlation_data
            .as_deref()
            .map(|data| hex(data).into()),
    );
    let identifiers: Vec<u32> = from
        .subscription_identifiers
        .iter()
        .map(|it| it.get())
        .collect();
    put(
        "subscriptionIdentifier",
        (!identifiers.is_empty()).then(|| identifiers.into()),
    );
    let pairs = from
        .user_properties
        .iter()
        .map(|(name, value)| json!([name, value]));
    let pairs: Vec<Value> = pairs.collect();
    put("userProperties", (!pairs.is_empty()).then(|| pairs.into()));
    json!({"client": client, "message": {
        "topic": message.topic(),
        "payload": hex(message.payload()),
        "qos": message.quality() as u8,
        "retain": message.is_retained(),
        "properties": properties,
    }})
}

/// A field that is a text.
pub(super) fn text<'v>(from: &'v Value, name: &str) -> Result<&'v str, Failure> {
    from[name]
        .as_str()
        .ok_or_else(|| format!("no {name}").into())
}

/// A field that is a number, if it is there.
pub(super) fn whole(from: &Value, name: &str) -> Result<Option<u32>, Failure> {
    let number = from[name].as_u64().map(u32::try_from);
    Ok(number.transpose()?)
}

fn small(from: &Value, name: &str) -> Result<u16, Failure> {
    let number = from[name].as_u64().ok_or_else(|| format!("no {name}"))?;
    Ok(u16::try_from(number)?)
}

fn quality(from: &Value) -> Result<QoS, Failure> {
    let bits = u8::try_from(from["qos"].as_u64().ok_or("no qos")?)?;
    QoS::from_bits(bits).ok_or_else(|| format!("QoS {bits}").into())
}

fn user_properties(from: &Value) -> Result<Vec<(String, String)>, Failure> {
    match from.get("userProperties") {
        Some(pairs) => Ok(serde_json::from_value(pairs.clone())?),
        None => Ok(Vec::new()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of hexadecimal digits.
pub(super) fn bytes(text: &str) -> Result<Vec<u8>, Failure> {
    let pairs = text.as_bytes().chunks(2);
    let bytes = pairs.map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?));
    bytes.collect()
}
