//! NumPy scalars: `{"nd": false, "type": "<f4", "data": bytes}`, as `msgpack_numpy.encode` writes an `np.float32`
//! (<https://github.com/lebedov/msgpack-numpy>). Arrays (`nd` true) stay maps.

use super::{Head, head, unsigned};
use crate::wire::value::Value;

/// Entries of the map that a scalar is written as.
pub(super) const FIELDS: usize = 3;

/// The number of the scalar whose map has its entries at `at`; `None`: the map is something else.
pub(super) fn scalar(bytes: &[u8], mut at: usize) -> Option<Value<'_>> {
    let (mut is_scalar, mut kind, mut data) = (false, None, None);
    for _ in 0..FIELDS {
        let key = plain_scalar(bytes, &mut at)?;
        let value = plain_scalar(bytes, &mut at)?;
        match contents(&key)? {
            b"nd" => is_scalar = value == Value::Bool(false),
            b"type" => kind = Some(value),
            b"data" => data = Some(value),
            _ => return None,
        }
    }
    if !is_scalar {
        return None;
    }
    number(contents(&kind?)?, contents(&data?)?)
}

fn plain_scalar<'a>(bytes: &'a [u8], at: &mut usize) -> Option<Value<'a>> {
    let (Head::Scalar(value), next) = head(bytes, *at)? else { return None };
    *at = next;
    Some(value)
}

/// The bytes of text or of bytes: which of them a value is depends on whether it happens to be UTF-8.
fn contents<'v>(value: &'v Value<'_>) -> Option<&'v [u8]> {
    match value {
        Value::Text(text) => Some(text.as_bytes()),
        Value::Bytes(None, bytes) => Some(bytes),
        _ => None,
    }
}

/// Reads `data` as NumPy's `type` string says: byte order, kind, size.
fn number(kind: &[u8], data: &[u8]) -> Option<Value<'static>> {
    let (order, kind) = match kind {
        [order @ (b'<' | b'>' | b'|' | b'='), kind @ ..] => (*order, kind),
        kind => (b'=', kind),
    };
    let [kind, size @ (b'1' | b'2' | b'4' | b'8')] = kind else { return None };
    let size = usize::from(size - b'0');
    if data.len() != size {
        return None;
    }
    // Little-endian is the order of every machine that NumPy is commonly run on.
    let bits = data.iter().enumerate().fold(0_u64, |bits, (place, byte)| {
        let place = if order == b'>' { size - 1 - place } else { place };
        bits | u64::from(*byte) << (8 * place)
    });
    let unused = 64 - 8 * size as u32;
    match (kind, size) {
        (b'f', 2) => Some(Value::Float(half(bits as u16))),
        (b'f', 4) => Some(Value::Float(f64::from(f32::from_bits(bits as u32)))),
        (b'f', 8) => Some(Value::Float(f64::from_bits(bits))),
        (b'i', _) => Some(Value::Int((bits << unused).cast_signed() >> unused)),
        (b'u', _) => Some(unsigned(bits)),
        _ => None,
    }
}

/// IEEE 754 half precision: one bit of sign, five of exponent, ten of fraction.
fn half(bits: u16) -> f64 {
    let fraction = f64::from(bits & 0x3ff) / 1_024.0;
    let size = match (bits >> 10) & 0x1f {
        0 => fraction * (-14_f64).exp2(),
        0x1f if fraction == 0.0 => f64::INFINITY,
        0x1f => f64::NAN,
        exponent => (1.0 + fraction) * (f64::from(exponent) - 15.0).exp2(),
    };
    if bits >> 15 == 1 { -size } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_read_in_its_byte_order() {
        for (kind, data, number) in [
            ("<f2", &[0x00, 0x38][..], Some(Value::Float(0.5))),
            (">f2", &[0xc0, 0x00], Some(Value::Float(-2.0))),
            ("<f2", &[0x01, 0x00], Some(Value::Float(5.960_464_477_539_063e-8))),
            ("<f4", &[0x00, 0x00, 0x80, 0x3e], Some(Value::Float(0.25))),
            (">f8", &0.1_f64.to_be_bytes(), Some(Value::Float(0.1))),
            ("|i1", &[0xff], Some(Value::Int(-1))),
            ("<i2", &[0xfe, 0xff], Some(Value::Int(-2))),
            (">i4", &[0, 0, 1, 0], Some(Value::Int(256))),
            ("<i8", &i64::MIN.to_le_bytes(), Some(Value::Int(i64::MIN))),
            ("|u1", &[0xff], Some(Value::Int(255))),
            ("<u8", &u64::MAX.to_le_bytes(), Some(Value::Big(u64::MAX.to_string().into()))),
            ("<f4", &[0, 0], None),
            ("<c8", &[0; 8], None),
            ("|b1", &[1], None),
            ("", &[], None),
        ] {
            assert_eq!(super::number(kind.as_bytes(), data), number, "{kind}");
        }
        assert!(half(0x7e00).is_nan() && half(0xfc00) == f64::NEG_INFINITY);
    }
}
