//! Looking into a protobuf message without its definition, by the numbers of its fields.
//!
//! Source: the protobuf encoding, <https://protobuf.dev/programming-guides/encoding/>.

use std::collections::BTreeSet;

use prost::encoding::{WireType, decode_key, decode_varint};

/// One field of a message.
enum Field<'m> {
    /// A number in any of the forms that numbers have.
    Number(u64),
    /// A message, a text or bytes.
    Bytes(&'m [u8]),
}

/// The fields of a message in their order; `None` when it isn't one.
fn parse(mut message: &[u8]) -> Option<Vec<(u32, Field<'_>)>> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let (number, kind) = decode_key(&mut message).ok()?;
        let field = match kind {
            WireType::Varint => Field::Number(decode_varint(&mut message).ok()?),
            WireType::SixtyFourBit => {
                let (bytes, rest) = message.split_first_chunk::<8>()?;
                message = rest;
                Field::Number(u64::from_le_bytes(*bytes))
            }
            WireType::ThirtyTwoBit => {
                let (bytes, rest) = message.split_first_chunk::<4>()?;
                message = rest;
                Field::Number(u32::from_le_bytes(*bytes).into())
            }
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut message).ok()?).ok()?;
                let (bytes, rest) = message.split_at_checked(length)?;
                message = rest;
                Field::Bytes(bytes)
            }
            WireType::StartGroup | WireType::EndGroup => return None,
        };
        fields.push((number, field));
    }
    Some(fields)
}

/// The number at a path of field numbers, in the first of repeated messages; `None` when it is not there, which is
/// also how protobuf writes a 0.
pub fn number(message: &[u8], path: &[u32]) -> Option<u64> {
    let (first, rest) = path.split_first()?;
    let (_, field) = parse(message)?.into_iter().find(|(number, _)| number == first)?;
    match field {
        Field::Number(value) => rest.is_empty().then_some(value),
        Field::Bytes(bytes) => number(bytes, rest),
    }
}

/// The paths of all fields down to a depth. What looks like a message is taken for one.
pub fn fields(message: &[u8], depth: usize) -> BTreeSet<Vec<u32>> {
    let mut paths = BTreeSet::new();
    for (number, field) in parse(message).into_iter().flatten() {
        paths.insert(vec![number]);
        if let Field::Bytes(bytes) = field
            && depth > 1
        {
            paths.extend(fields(bytes, depth - 1).into_iter().map(|path| [vec![number], path].concat()));
        }
    }
    paths
}
