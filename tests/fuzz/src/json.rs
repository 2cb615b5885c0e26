//! JSON as text that may be anything but right: keys may stand twice, and any place may hold any bytes.

/// A document in the making.
#[derive(Clone, Debug)]
pub(crate) enum Json {
    /// Text as it stands.
    Text(Vec<u8>),
    /// A list.
    List(Vec<Json>),
    /// Members; nothing keeps a name from standing twice.
    Object(Vec<(Vec<u8>, Json)>),
}

impl Json {
    pub(crate) fn text(text: impl Into<Vec<u8>>) -> Self {
        Self::Text(text.into())
    }

    pub(crate) fn string(text: &str) -> Self {
        Self::Text(serde_json::Value::from(text).to_string().into_bytes())
    }

    pub(crate) fn object<const N: usize>(members: [(&str, Json); N]) -> Self {
        let members = members.into_iter();
        Self::Object(members.map(|(name, json)| (quoted(name), json)).collect())
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut bytes);
        bytes
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Text(text) => bytes.extend_from_slice(text),
            Self::List(items) => {
                bytes.push(b'[');
                for (place, item) in items.iter().enumerate() {
                    if place > 0 {
                        bytes.push(b',');
                    }
                    item.write(bytes);
                }
                bytes.push(b']');
            }
            Self::Object(members) => {
                bytes.push(b'{');
                for (place, (name, member)) in members.iter().enumerate() {
                    if place > 0 {
                        bytes.push(b',');
                    }
                    bytes.extend_from_slice(name);
                    bytes.push(b':');
                    member.write(bytes);
                }
                bytes.push(b'}');
            }
        }
    }

    /// How many places there are in it.
    pub(crate) fn places(&self) -> usize {
        1 + match self {
            Self::Text(_) => 0,
            Self::List(items) => items.iter().map(Self::places).sum(),
            Self::Object(members) => members.iter().map(|(_, member)| member.places()).sum(),
        }
    }

    /// The place of this number, itself being number 0.
    pub(crate) fn place(&mut self, number: usize) -> Option<&mut Self> {
        if number == 0 {
            return Some(self);
        }
        let mut left = number - 1;
        let below: Vec<&mut Self> = match self {
            Self::Text(_) => Vec::new(),
            Self::List(items) => items.iter_mut().collect(),
            Self::Object(members) => members.iter_mut().map(|(_, member)| member).collect(),
        };
        for child in below {
            let places = child.places();
            if left < places {
                return child.place(left);
            }
            left -= places;
        }
        None
    }
}

/// A name as JSON text.
pub(crate) fn quoted(name: &str) -> Vec<u8> {
    serde_json::Value::from(name).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_can_be_reached_and_changed() {
        let whole = Json::object([
            ("a", Json::List(vec![Json::text("1"), Json::text("2")])),
            ("b", Json::text("3")),
        ]);
        assert_eq!(whole.bytes(), br#"{"a":[1,2],"b":3}"#);
        assert_eq!(whole.places(), 5);
        for (place, changed) in [
            r"x",
            r#"{"a":x,"b":3}"#,
            r#"{"a":[x,2],"b":3}"#,
            r#"{"a":[1,x],"b":3}"#,
            r#"{"a":[1,2],"b":x}"#,
        ]
        .into_iter()
        .enumerate()
        {
            let mut copy = whole.clone();
            *copy.place(place).expect("a place") = Json::text("x");
            assert_eq!(copy.bytes(), changed.as_bytes());
        }
        assert!(whole.clone().place(5).is_none());
    }
}
