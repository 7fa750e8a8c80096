//! What the server says (RFC 5246, section 7.4; RFC 8422).
//!
//! Owns: writing whole messages, header and all, one after the other. Does not own: cutting them into records (`server`).

use rustls_pki_types::CertificateDer;

use super::{FragmentHeader, HEADER, MessageType};
use crate::record::DTLS_1_2;

/// Only named curves are offered (RFC 8422, section 5.4).
const NAMED_CURVE: u8 = 3;

/// `ecdsa_sign`, the only kind of certificate that is asked for.
const ECDSA_SIGN: u8 = 64;

/// Messages of one flight, each unfragmented, and the number of the next.
#[derive(Debug)]
pub(crate) struct Messages {
    pub(crate) bytes: Vec<u8>,
    pub(crate) next: u16,
}

/// What a ServerHello says.
pub(crate) struct ServerHello<'a> {
    pub(crate) random: &'a [u8; 32],
    pub(crate) suite: u16,
    pub(crate) extended_master_secret: bool,
    pub(crate) secure_renegotiation: bool,
    pub(crate) point_formats: bool,
}

impl Messages {
    fn append(&mut self, kind: MessageType, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend([0; HEADER]);
        write(&mut self.bytes);
        let length = u32::try_from(self.bytes.len() - start - HEADER).unwrap_or(u32::MAX);
        let header = FragmentHeader::whole(kind, length, self.next);
        if let Some(place) = self.bytes.get_mut(start..start + HEADER) {
            place.copy_from_slice(&header.to_bytes());
        }
        self.next = self.next.wrapping_add(1);
    }

    pub(crate) fn server_hello(&mut self, hello: &ServerHello<'_>) {
        self.append(MessageType::SERVER_HELLO, |out| {
            out.extend(DTLS_1_2.to_be_bytes());
            out.extend(hello.random);
            out.push(0); // No session id: nothing is resumed.
            out.extend(hello.suite.to_be_bytes());
            out.push(0); // Not compressed.
            let mut extensions: Vec<u8> = Vec::new();
            if hello.secure_renegotiation {
                extensions.extend([0xFF, 0x01, 0, 1, 0]);
            }
            if hello.extended_master_secret {
                extensions.extend([0, 23, 0, 0]);
            }
            if hello.point_formats {
                extensions.extend([0, 11, 0, 2, 1, 0]);
            }
            if !extensions.is_empty() {
                vec16(out, &extensions);
            }
        });
    }

    pub(crate) fn certificate(&mut self, chain: &[CertificateDer<'_>]) {
        self.append(MessageType::CERTIFICATE, |out| {
            out.extend(u24(chain.iter().map(|one| 3 + one.len()).sum()));
            for one in chain {
                out.extend(u24(one.len()));
                out.extend_from_slice(one);
            }
        });
    }

    /// `parameters` as [`ecdhe_parameters`] wrote them, and what was signed of them.
    pub(crate) fn server_key_exchange(&mut self, parameters: &[u8], scheme: u16, signature: &[u8]) {
        self.append(MessageType::SERVER_KEY_EXCHANGE, |out| {
            out.extend(parameters);
            out.extend(scheme.to_be_bytes());
            vec16(out, signature);
        });
    }

    /// Any CA that the client has a certificate of may have signed it: none is named.
    pub(crate) fn certificate_request(&mut self, schemes: &[u16]) {
        self.append(MessageType::CERTIFICATE_REQUEST, |out| {
            out.extend([1, ECDSA_SIGN]);
            let schemes: Vec<u8> = schemes.iter().flat_map(|scheme| scheme.to_be_bytes()).collect();
            vec16(out, &schemes);
            vec16(out, &[]);
        });
    }

    pub(crate) fn server_hello_done(&mut self) {
        self.append(MessageType::SERVER_HELLO_DONE, |_| ());
    }
}

/// Group and point of an ECDHE exchange (RFC 8422, section 5.4).
pub(crate) fn ecdhe_parameters(group: u16, point: &[u8]) -> Vec<u8> {
    let mut parameters = vec![NAMED_CURVE];
    parameters.extend(group.to_be_bytes());
    parameters.push(u8::try_from(point.len()).unwrap_or_default());
    parameters.extend(point);
    parameters
}

fn vec16(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u16::try_from(bytes.len()).unwrap_or_default().to_be_bytes());
    out.extend(bytes);
}

fn u24(number: usize) -> [u8; 3] {
    let [_, high, middle, low] = u32::try_from(number).unwrap_or_default().to_be_bytes();
    [high, middle, low]
}
