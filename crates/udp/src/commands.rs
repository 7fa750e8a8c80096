//! Commands to devices: as datagrams to where the device was last heard from.
//!
//! Owns: when a command is sent, and when it waits. Does not own: the queue and the outcomes (`landfall-hub`), the form
//! (`answer.rs`).

use std::future::Future as _;
use std::io;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use landfall_event::{Outcome, Transport};
use landfall_hub::{PeerHandle, may_receive_command};

use crate::answer;
use crate::door::Door;
use crate::metrics::level;

/// The most bytes in a datagram over IPv4.
const LARGEST: usize = 65_507;
/// The most bytes in a record of DTLS, of which a datagram holds one (RFC 5246, section 6.2.1).
const LARGEST_RECORD: usize = 16_384;
/// A socket without room is tried again after this.
const RELIEF: Duration = Duration::from_millis(20);

impl Door {
    /// A session has commands: they go out now if the device is likely to hear them, else with its next word.
    pub(crate) fn on_commands(&mut self, peer: &PeerHandle) {
        let reach = self.server.config.reach;
        let is_near = !reach.is_zero() && Duration::from_millis(peer.silent_ms()) <= reach;
        if is_near && !peer.is_asleep() {
            self.send_commands(peer);
        }
    }

    /// Sends everything that waits for the device.
    pub(crate) fn send_commands(&mut self, peer: &PeerHandle) {
        // On a channel of another socket they wait for the device's next word there.
        let Some(via) = self.way_to(peer) else { return };
        let socket = Arc::clone(&self.socket);
        let largest = if peer.transport() == Transport::Dtls { LARGEST_RECORD } else { LARGEST };
        while let Some(command) = peer.next_command() {
            if !may_receive_command(peer.acl(), &command) {
                peer.settled(&command.id, Outcome::Rejected, "not-authorized");
                continue;
            }
            answer::command(&command, &mut self.out);
            if self.out.len() > largest {
                peer.settled(&command.id, Outcome::Rejected, "too-large");
                continue;
            }
            match self.transmit(&socket, &via) {
                Ok(()) => {
                    self.server.metrics.commands.inc();
                    // A device confirms with `got`, if it can; nothing says beforehand whether it does.
                    peer.sent(&command.id, command.payload.len(), true);
                }
                Err(error) => {
                    self.server.metrics.unsent_commands.inc();
                    peer.put_back(command);
                    if error.kind() == io::ErrorKind::WouldBlock {
                        self.try_again(peer);
                    } else {
                        tracing::debug!(remote = %via.path, %error, "a command waits for the device's next word");
                    }
                    return;
                }
            }
        }
    }

    fn try_again(&mut self, peer: &PeerHandle) {
        if self.congested.len() < self.server.config.max_congested {
            self.congested.push_back(peer.clone());
            self.server.metrics.congested.inc();
            self.relief.get_or_insert_with(|| Box::pin(tokio::time::sleep(RELIEF)));
        }
    }

    /// Tries the devices again whose command found no room.
    pub(crate) fn poll_relief(&mut self, cx: &mut Context<'_>) {
        while self.relief.as_mut().is_some_and(|relief| relief.as_mut().poll(cx).is_ready()) {
            self.relief = None;
            let waiting = std::mem::take(&mut self.congested);
            self.server.metrics.congested.dec_by(level(waiting.len()));
            for peer in waiting {
                // In its order: one that finds no room again waits for the next time.
                self.guarded(|door| door.on_commands(&peer));
            }
        }
    }
}
