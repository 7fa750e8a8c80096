//! An established association: its records (RFC 6347, section 4.1).
//!
//! Owns: keys, sequence numbers, the replay window, and the server's last flight until it is known to have arrived. Does not
//! own: how it came to be (`shaking`).

use crate::alert::Alert;
use crate::engine::{BadRecord, Closing, EngineEvent, Outlet, SendError};
use crate::handshake::{self, FragmentHeader, MessageType};
use crate::keys::{TrafficKeys, VERIFY_DATA};
use crate::record::{ContentType, HEADER, MAX_PLAINTEXT, MAX_SEQUENCE, RecordHeader};
use crate::replay::ReplayWindow;
use crate::suite::Suite;

/// The only epoch that is protected: nothing is renegotiated.
const EPOCH: u16 = 1;

/// Bytes of a Finished with its header.
pub(super) const FINISHED: usize = handshake::HEADER + VERIFY_DATA;

/// A warning, and what is answered to a client that wants to negotiate anew (RFC 5246, section 7.2.2).
const NO_RENEGOTIATION: [u8; 2] = [1, 100];

/// Both directions of an association.
pub(super) struct Channel {
    suite: Suite,
    keys: TrafficKeys,
    window: ReplayWindow,
    next_record: u64,
    last_flight: Option<Box<LastFlight>>,
    /// Records that may still fail to authenticate.
    forgeries_left: u32,
}

/// ChangeCipherSpec and Finished.
struct LastFlight {
    /// The number of the next record in epoch 0.
    next_record: u64,
    message_seq: u16,
    verify_data: [u8; VERIFY_DATA],
}

impl Channel {
    /// `max_forged` records that do not authenticate end it.
    pub(super) fn new(suite: Suite, keys: TrafficKeys, max_forged: u32) -> Self {
        Self {
            suite,
            keys,
            window: ReplayWindow::default(),
            next_record: 0,
            last_flight: None,
            forgeries_left: max_forged,
        }
    }

    pub(super) fn suite(&self) -> Suite {
        self.suite
    }

    /// Deciphers a record of the protected epoch, without a mark in the replay window.
    pub(super) fn decipher<'a>(&self, header: RecordHeader, body: &'a mut [u8]) -> Option<&'a mut [u8]> {
        self.suite.open(&self.keys.client, header, body)
    }

    /// Deciphers a record of the protected epoch; it was there then.
    pub(super) fn open<'a>(
        &mut self,
        header: RecordHeader,
        body: &'a mut [u8],
    ) -> Result<&'a mut [u8], BadRecord> {
        if !self.window.is_new(header.sequence) {
            return Err(BadRecord::Replayed);
        }
        let text = self.decipher(header, body).ok_or(BadRecord::Forged)?;
        self.window.mark(header.sequence);
        Ok(text)
    }

    /// What the server's Finished says, and its number; `next_record` is the next in epoch 0.
    pub(super) fn set_last_flight(
        &mut self,
        next_record: u64,
        message_seq: u16,
        verify_data: [u8; VERIFY_DATA],
    ) {
        self.last_flight = Some(Box::new(LastFlight { next_record, message_seq, verify_data }));
    }

    /// Sends ChangeCipherSpec and Finished, as long as it is not known that they arrived.
    pub(super) fn send_last_flight(&mut self, outlet: &mut impl Outlet) -> bool {
        let Some(last) = &mut self.last_flight else { return false };
        let change = RecordHeader::new(ContentType::CHANGE_CIPHER_SPEC, 0, last.next_record, 1);
        last.next_record = (last.next_record + 1) & MAX_SEQUENCE;
        let length = VERIFY_DATA as u32;
        let header = FragmentHeader::whole(MessageType::FINISHED, length, last.message_seq).to_bytes();
        let verify_data = last.verify_data;
        let mut finished = [0; FINISHED];
        for (place, byte) in finished.iter_mut().zip(header.into_iter().chain(verify_data)) {
            *place = byte;
        }
        let mut datagram = Vec::with_capacity(2 * HEADER + 1 + FINISHED + self.suite.overhead());
        datagram.extend(change.to_bytes());
        datagram.push(1);
        if self.seal(ContentType::HANDSHAKE, &finished, MAX_SEQUENCE, &mut datagram).is_ok() {
            outlet.transmit(&datagram);
        }
        true
    }

    /// One record with `data`.
    pub(super) fn send(&mut self, data: &[u8], datagram: &mut Vec<u8>) -> Result<(), SendError> {
        self.seal(ContentType::APPLICATION_DATA, data, MAX_SEQUENCE - 1, datagram)
    }

    /// Tells the peer that this is the end.
    pub(super) fn close(&mut self, outlet: &mut impl Outlet) {
        self.transmit(ContentType::ALERT, &Alert::CLOSE_NOTIFY.to_bytes(), outlet);
    }

    fn transmit(&mut self, content: ContentType, text: &[u8], outlet: &mut impl Outlet) {
        let mut datagram = Vec::with_capacity(HEADER + text.len() + self.suite.overhead());
        if self.seal(content, text, MAX_SEQUENCE, &mut datagram).is_ok() {
            outlet.transmit(&datagram);
        }
    }

    /// A number is used once: those from `end` on are not for this.
    fn seal(
        &mut self,
        content: ContentType,
        text: &[u8],
        end: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        if text.len() > MAX_PLAINTEXT {
            return Err(SendError::TooLarge);
        }
        if self.next_record >= end {
            return Err(SendError::Exhausted);
        }
        let header = RecordHeader::new(content, EPOCH, self.next_record, 0);
        self.next_record += 1;
        self.suite.seal(&self.keys.server, header, text, out).ok_or(SendError::TooLarge)
    }

    /// A record has come; why it is the end, if it is. What does not authenticate changes nothing.
    pub(super) fn receive(
        &mut self,
        header: RecordHeader,
        body: &mut [u8],
        outlet: &mut impl Outlet,
    ) -> Option<Closing> {
        if header.epoch != EPOCH {
            // The client's last flight comes again in both epochs while the server's is not there.
            let is_again = header.epoch == 0 && self.last_flight.is_some();
            let of_a_flight =
                matches!(header.content, ContentType::HANDSHAKE | ContentType::CHANGE_CIPHER_SPEC);
            if !(is_again && of_a_flight) {
                outlet.event(EngineEvent::Dropped(BadRecord::Unexpected));
            }
            return None;
        }
        let text = match self.open(header, body) {
            Ok(text) => text,
            Err(bad) => {
                outlet.event(EngineEvent::Dropped(bad));
                return self.suffered(bad, outlet);
            }
        };
        match header.content {
            ContentType::APPLICATION_DATA => {
                // A client that sends data has the server's Finished.
                self.last_flight = None;
                outlet.data(text);
                None
            }
            ContentType::ALERT => self.alert(text, outlet),
            ContentType::HANDSHAKE => {
                self.handshake(text, outlet);
                None
            }
            _ => {
                outlet.event(EngineEvent::Dropped(BadRecord::Unexpected));
                None
            }
        }
    }

    /// A forgery is a guess at a tag, of which each key bears so many (RFC 9147, section 4.5.3). The peer hears of the end: it is
    /// none of its doing.
    fn suffered(&mut self, bad: BadRecord, outlet: &mut impl Outlet) -> Option<Closing> {
        if bad != BadRecord::Forged {
            return None;
        }
        self.forgeries_left = self.forgeries_left.saturating_sub(1);
        if self.forgeries_left > 0 {
            return None;
        }
        self.close(outlet);
        Some(Closing::Forged)
    }

    fn alert(&mut self, text: &[u8], outlet: &mut impl Outlet) -> Option<Closing> {
        match Alert::read(text) {
            Some((_, Alert::CLOSE_NOTIFY)) => {
                self.close(outlet);
                Some(Closing::CloseNotify)
            }
            Some((true, alert)) => Some(Closing::Alert(alert.0)),
            Some((false, _)) => None,
            None => {
                outlet.event(EngineEvent::Dropped(BadRecord::Malformed));
                None
            }
        }
    }

    /// The only messages that have a place now are the client's Finished, again, and a wish to negotiate anew.
    fn handshake(&mut self, text: &[u8], outlet: &mut impl Outlet) {
        match FragmentHeader::read(text).map(|(header, ..)| header.kind) {
            Some(MessageType::FINISHED) => {
                if self.send_last_flight(outlet) {
                    outlet.event(EngineEvent::Retransmitted);
                }
            }
            Some(MessageType::CLIENT_HELLO) => {
                self.transmit(ContentType::ALERT, &NO_RENEGOTIATION, outlet);
                outlet.event(EngineEvent::Dropped(BadRecord::Unexpected));
            }
            Some(_) => outlet.event(EngineEvent::Dropped(BadRecord::Unexpected)),
            None => outlet.event(EngineEvent::Dropped(BadRecord::Malformed)),
        }
    }
}

#[cfg(test)]
mod tests;
