//! Messages as gRPC puts them into DATA frames: a byte that says "not compressed", four of length, the message.

use super::fault::Fault;

/// What comes before each message.
pub(super) const PREFIX_BYTES: usize = 5;

/// The longest message that is taken: what a server of ours accepts, too.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Hands each whole message to `message`. What is left of the last is kept in `partial` until its rest
/// arrives; almost always there is none, and nothing is copied.
pub(super) fn split(
    partial: &mut Vec<u8>,
    bytes: &[u8],
    mut message: impl FnMut(&[u8]),
) -> Result<(), Fault> {
    if partial.is_empty() {
        let rest = split_whole(bytes, &mut message)?;
        partial.extend_from_slice(rest);
        return Ok(());
    }
    partial.extend_from_slice(bytes);
    let rest = split_whole(partial, &mut message)?.len();
    partial.drain(..partial.len() - rest);
    Ok(())
}

/// The rest of `bytes` after its last whole message.
fn split_whole<'a>(mut bytes: &'a [u8], message: &mut impl FnMut(&[u8])) -> Result<&'a [u8], Fault> {
    while let Some((&[compressed, length @ ..], rest)) = bytes.split_first_chunk::<PREFIX_BYTES>() {
        let length = u32::from_be_bytes(length) as usize;
        // We never say that we can read compressed messages.
        if compressed != 0 || length > MESSAGE_BYTES_MAX {
            return Err(Fault::MessageMalformed);
        }
        let Some((whole, rest)) = rest.split_at_checked(length) else {
            break;
        };
        message(whole);
        bytes = rest;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two messages, however they are cut in two.
    #[test]
    fn messages_come_out_whole_wherever_they_were_cut() {
        let bytes = b"\0\0\0\0\x02ab\0\0\0\0\x00\0\0\0\0\x03cde";
        for at in 0..=bytes.len() {
            let (mut partial, mut seen) = (Vec::new(), Vec::new());
            for part in [&bytes[..at], &bytes[at..]] {
                split(&mut partial, part, |message| seen.push(message.to_vec())).expect("well-formed");
            }
            assert_eq!(seen, [b"ab".to_vec(), Vec::new(), b"cde".to_vec()], "cut at {at}");
            assert!(partial.is_empty(), "cut at {at}");
        }
    }

    #[test]
    fn what_we_did_not_offer_to_read_is_a_fault() {
        for bytes in [b"\x01\0\0\0\0", b"\0\xff\0\0\0"] {
            let fault = split(&mut Vec::new(), bytes, |_| {});
            assert_eq!(fault, Err(Fault::MessageMalformed));
        }
    }
}
