//! DHCP messages (RFC 2131, RFC 2132), a server's side.

use std::net::Ipv4Addr;

use super::Offer;

const COOKIE: [u8; 4] = [99, 130, 83, 99];

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Any address.
    Any,
    /// This one, whether it was offered or was had before.
    For(Ipv4Addr),
}

/// What a server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Offer = 2,
    Ack = 5,
    Nak = 6,
}

/// A client's message.
#[derive(Debug)]
pub(super) struct Question {
    pub asked: Asked,
    /// What an answer repeats: transaction and hardware address.
    transaction: [u8; 4],
    hardware: [u8; 16],
}

impl Question {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let had: [u8; 4] = bytes.get(12..16)?.try_into().ok()?;
        let wish = option(bytes, 50).and_then(|wish| <[u8; 4]>::try_from(wish).ok()).unwrap_or(had);
        let asked = match option(bytes, 53)? {
            [1] => Asked::Any,
            [3] => Asked::For(wish.into()),
            _ => return None,
        };
        let (transaction, hardware) =
            (bytes.get(4..8)?.try_into().ok()?, bytes.get(28..44)?.try_into().ok()?);
        Some(Self { asked, transaction, hardware })
    }

    /// The answer of that kind.
    pub(super) fn answer(&self, kind: Kind, offer: &Offer) -> Vec<u8> {
        let router = offer.router().octets();
        let mut bytes = vec![0; 236];
        bytes.splice(..4, [2, 1, 6, 0]);
        bytes.splice(4..8, self.transaction);
        // "Broadcast": the client has no address to send to.
        bytes.splice(10..12, [0x80, 0]);
        bytes.splice(28..44, self.hardware);
        let mut options = vec![(53, vec![kind as u8]), (54, router.to_vec())];
        if kind != Kind::Nak {
            bytes.splice(16..20, offer.address.octets());
            // Shortly before the end at the latest, as RFC 2131 wants it.
            let rebind = (offer.lease - offer.lease / 8).max(offer.renew + 1);
            options.extend([
                (1, vec![255, 255, 255, 0]),
                (3, router.to_vec()),
                (6, router.to_vec()),
                (51, offer.lease.to_be_bytes().to_vec()),
                (58, offer.renew.to_be_bytes().to_vec()),
                (59, rebind.to_be_bytes().to_vec()),
            ]);
        }
        bytes.extend(COOKIE);
        for (code, value) in options {
            bytes.extend([code, value.len() as u8]);
            bytes.extend(value);
        }
        bytes.push(255);
        bytes
    }
}

/// The value of an option.
fn option(bytes: &[u8], wanted: u8) -> Option<&[u8]> {
    let mut rest = bytes.get(236..)?.strip_prefix(&COOKIE)?;
    loop {
        match rest {
            [0, more @ ..] => rest = more,
            [255, ..] | [_] | [] => return None,
            [code, length, more @ ..] => {
                let (value, after) = more.split_at_checked(usize::from(*length))?;
                if *code == wanted {
                    return Some(value);
                }
                rest = after;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_as_it_is_written() {
        let question = Question { asked: Asked::Any, transaction: [1, 2, 3, 4], hardware: [5; 16] };
        let answer = question.answer(Kind::Ack, &Offer::new([10, 1, 2, 3]));
        assert_eq!(option(&answer, 3), Some(&[10, 1, 2, 1][..]));
        assert_eq!(option(&answer, 51), Some(&86_400_u32.to_be_bytes()[..]));
        assert_eq!(answer[4..8], [1, 2, 3, 4]);
        // Of a server: no question.
        assert!(Question::parse(&answer).is_none());
    }

    #[test]
    fn a_wish_is_an_option_or_the_address_that_is_had() {
        let mut bytes = vec![0; 236];
        bytes.splice(12..16, [10, 0, 0, 9]);
        bytes.extend(COOKIE);
        bytes.extend([53, 1, 3, 255]);
        assert_eq!(Question::parse(&bytes).unwrap().asked, Asked::For([10, 0, 0, 9].into()));
        bytes.truncate(243);
        bytes.extend([50, 4, 10, 0, 0, 7, 255]);
        assert_eq!(Question::parse(&bytes).unwrap().asked, Asked::For([10, 0, 0, 7].into()));
    }
}
