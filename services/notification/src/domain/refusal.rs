//! What a mail server's refusal is about: the recipient, for good, or something that may pass.

/// What a mail server was asked when it refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// To talk to us at all: greeting, encryption, credentials.
    Opening,
    /// To take an e-mail of our sender.
    Sender,
    /// To take an e-mail for the recipient.
    Recipient,
    /// To take what the e-mail says.
    Content,
}

/// Whether a reply with this code and text refuses this very recipient for good.
///
/// Only an enhanced code says for sure what a refusal is about (RFC 3463): 5.1 is an address, and of those 5.1.7
/// and 5.1.8 are the sender's. Without one, 550 and 553 are believed where they answer the recipient's
/// address. Everything else, such as a relay that does not know us or a sender that it does not like, is
/// about the configuration, and ends when somebody mends it.
#[must_use]
pub fn is_final(asked: Asked, code: u16, text: &str) -> bool {
    if !(500..=599).contains(&code) {
        return false;
    }
    match (asked, enhanced_code(text)) {
        (Asked::Recipient | Asked::Content, Some([5, 1, detail])) => !matches!(detail, 7 | 8),
        (Asked::Recipient, None) => matches!(code, 550 | 553),
        _ => false,
    }
}

/// The enhanced code that a reply's text begins with (RFC 2034), such as `5.1.1`.
fn enhanced_code(text: &str) -> Option<[u16; 3]> {
    let word = text.split_whitespace().next()?;
    let mut parts = word.trim_end_matches(':').split('.');
    let mut number = || parts.next()?.parse().ok();
    let code = [number()?, number()?, number()?];
    parts.next().is_none().then_some(code)
}

#[cfg(test)]
mod tests {
    use super::{Asked::*, *};

    #[test]
    fn only_a_refusal_of_the_recipient_is_final() {
        for (asked, code, text, expected) in [
            (Recipient, 550, "5.1.1 no such user", true),
            (Recipient, 550, "5.1.10 the domain takes no mail", true),
            (Recipient, 553, "5.1.3: not an address", true),
            (Recipient, 554, "5.1.2 no such host", true),
            // Some ask for all of it before they look.
            (Content, 550, "5.1.1 no such user", true),
            (Recipient, 550, "no such user", true),
            (Recipient, 553, "mailbox name not allowed", true),
            (Recipient, 550, "", true),
            // Ours to mend: sender, relay, credentials, policy.
            (Recipient, 550, "5.1.8 the sender's domain does not exist", false),
            (Recipient, 553, "5.1.7 the sender's address is none", false),
            (Recipient, 550, "5.7.1 relaying denied", false),
            (Recipient, 554, "5.7.1 relaying denied", false),
            (Recipient, 551, "user not local", false),
            (Recipient, 552, "5.2.2 mailbox full", false),
            (Recipient, 554, "relay access denied", false),
            (Sender, 550, "5.1.0 sender rejected", false),
            (Sender, 550, "sender rejected", false),
            (Sender, 553, "sender address rejected", false),
            (Content, 550, "looks like spam", false),
            (Content, 554, "5.6.0 not well-formed", false),
            (Opening, 535, "5.7.8 wrong credentials", false),
            (Opening, 550, "we do not know you", false),
            // No refusal for good whatever the text says.
            (Recipient, 450, "5.1.1 greylisted", false),
            (Recipient, 451, "4.1.1 come back", false),
        ] {
            assert_eq!(is_final(asked, code, text), expected, "{asked:?}: {code} {text}");
        }
    }
}
