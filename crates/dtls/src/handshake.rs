//! Handshake messages (RFC 5246, section 7.4; RFC 6347, section 4.2.2).
//!
//! Owns: the twelve bytes before every fragment of one; its submodules own what the messages say. Does not own: when which
//! of them may come (`server`), putting them together (`fragments`).

pub(crate) mod client_hello;
pub(crate) mod client_messages;
pub(crate) mod hello;
pub(crate) mod server_messages;

/// Bytes before each fragment.
pub(crate) const HEADER: usize = 12;

/// What a message is, by its registered number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MessageType(pub(crate) u8);

impl MessageType {
    pub(crate) const CLIENT_HELLO: Self = Self(1);
    pub(crate) const SERVER_HELLO: Self = Self(2);
    pub(crate) const HELLO_VERIFY_REQUEST: Self = Self(3);
    pub(crate) const CERTIFICATE: Self = Self(11);
    pub(crate) const SERVER_KEY_EXCHANGE: Self = Self(12);
    pub(crate) const CERTIFICATE_REQUEST: Self = Self(13);
    pub(crate) const SERVER_HELLO_DONE: Self = Self(14);
    pub(crate) const CERTIFICATE_VERIFY: Self = Self(15);
    pub(crate) const CLIENT_KEY_EXCHANGE: Self = Self(16);
    pub(crate) const FINISHED: Self = Self(20);
}

/// What stands before a fragment of a message. All three lengths fit 24 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FragmentHeader {
    pub(crate) kind: MessageType,
    /// Of the message as a whole.
    pub(crate) length: u32,
    pub(crate) message_seq: u16,
    pub(crate) offset: u32,
    /// Of this fragment.
    pub(crate) fragment: u32,
}

impl FragmentHeader {
    /// The header of a message that is in one piece.
    pub(crate) const fn whole(kind: MessageType, length: u32, message_seq: u16) -> Self {
        Self { kind, length, message_seq, offset: 0, fragment: length }
    }

    /// The fragment that `bytes` begin with, and what follows it. `None` when it is cut short or would end behind its message.
    pub(crate) fn read(bytes: &[u8]) -> Option<(Self, &[u8], &[u8])> {
        let (&[kind, l0, l1, l2, s0, s1, o0, o1, o2, f0, f1, f2], rest) =
            bytes.split_first_chunk::<HEADER>()?;
        let header = Self {
            kind: MessageType(kind),
            length: u32::from_be_bytes([0, l0, l1, l2]),
            message_seq: u16::from_be_bytes([s0, s1]),
            offset: u32::from_be_bytes([0, o0, o1, o2]),
            fragment: u32::from_be_bytes([0, f0, f1, f2]),
        };
        let (body, rest) = rest.split_at_checked(usize::try_from(header.fragment).ok()?)?;
        (header.offset + header.fragment <= header.length).then_some((header, body, rest))
    }

    /// As it stands on the wire.
    pub(crate) fn to_bytes(self) -> [u8; HEADER] {
        let [_, l0, l1, l2] = self.length.to_be_bytes();
        let [s0, s1] = self.message_seq.to_be_bytes();
        let [_, o0, o1, o2] = self.offset.to_be_bytes();
        let [_, f0, f1, f2] = self.fragment.to_be_bytes();
        [self.kind.0, l0, l1, l2, s0, s1, o0, o1, o2, f0, f1, f2]
    }
}

/// What is left of a message to be read. Everything that reads past the end is `None`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(array)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| *byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(|bytes| u16::from_be_bytes(*bytes))
    }

    /// A vector with one byte of length.
    pub(crate) fn vec8(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.bytes(length.into())
    }

    /// A vector with two bytes of length.
    pub(crate) fn vec16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.bytes(length.into())
    }

    /// A vector with three bytes of length.
    pub(crate) fn vec24(&mut self) -> Option<&'a [u8]> {
        let &[high, middle, low] = self.array()?;
        self.bytes(usize::try_from(u32::from_be_bytes([0, high, middle, low])).ok()?)
    }

    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}
