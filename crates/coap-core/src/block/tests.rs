//! Blocks: the option's arithmetic, assembly, keeping, and what hostile peers make of each.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::message::Token;

const LIMITS: BodyLimits =
    BodyLimits { body: 4096, bodies: 8, per_peer: 2, bytes: 16_384, idle_ms: 1_000, whole_ms: 5_000 };

fn block(num: u32, more: bool, szx: u8) -> BlockValue {
    BlockValue::new(num, more, szx).unwrap()
}

fn what(name: &str) -> Fingerprint {
    Fingerprint::of_upload(2, [(11, name.as_bytes())])
}

fn body(length: usize) -> Bytes {
    (0..length).map(|i| (i % 251) as u8).collect()
}

/// The blocks of a body, as a client sends them.
fn blocks(body: &Bytes, szx: u8) -> Vec<(Bytes, BlockValue)> {
    let mut blocks = Vec::new();
    while let Some((payload, block)) = cut(body, block(u32::try_from(blocks.len()).unwrap(), false, szx)) {
        blocks.push((payload, block));
        if !block.more() {
            break;
        }
    }
    blocks
}

fn one_of(what: Fingerprint, block: BlockValue, size1: Option<u64>, payload: &[u8]) -> Part<'_> {
    Part { what, token: Token::default(), block, size1, payload }
}

fn incomplete() -> Upload {
    Upload::Refuse(Refusal::Incomplete)
}

mod value {
    use super::*;

    #[test]
    fn the_wire_form_is_that_of_section_2_2() {
        for (bytes, num, more, szx) in [
            (&[][..], 0, false, 0),
            (&[0x0e], 0, true, 6),
            (&[0x06], 0, false, 6),
            (&[0x1a], 1, true, 2),
            (&[0x01, 0x02], 16, false, 2),
            (&[0xff, 0xff, 0xfe], BlockValue::MAX_NUM, true, 6),
        ] {
            assert_eq!(BlockValue::decode(bytes), Ok(block(num, more, szx)), "{bytes:02x?}");
            assert_eq!(block(num, more, szx).encode(), bytes);
        }
        assert_eq!(BlockValue::decode(&[0, 0, 0x0e]), Ok(block(0, true, 6)), "leading zeros say nothing");
    }

    #[test]
    fn what_the_wire_form_excludes_is_refused() {
        assert_eq!(BlockValue::decode(&[0x07]), Err(BadBlock::Reserved));
        assert_eq!(BlockValue::decode(&[0xff, 0xff, 0xff]), Err(BadBlock::Reserved));
        assert_eq!(BlockValue::decode(&[0, 0, 0, 6]), Err(BadBlock::Length));
        assert_eq!(BlockValue::new(BlockValue::MAX_NUM + 1, false, 0), None);
        assert_eq!(BlockValue::new(0, false, 7), None);
    }

    #[test]
    fn a_smaller_block_starts_at_the_same_byte() {
        assert_eq!(block(3, true, 6).at_most(4), block(12, true, 4));
        assert_eq!(block(3, true, 4).at_most(6), block(3, true, 4));
        let high = block(BlockValue::MAX_NUM, false, 6);
        assert_eq!(high.at_most(0), high, "its number would not fit");
    }

    #[test]
    fn the_largest_block_within_a_number_of_bytes() {
        for (bytes, szx) in
            [(0, None), (15, None), (16, Some(0)), (1023, Some(5)), (1024, Some(6)), (9999, Some(6))]
        {
            assert_eq!(szx_within(bytes), szx, "{bytes}");
        }
    }

    #[test]
    fn a_body_is_cut_at_its_blocks() {
        let body = body(40);
        assert_eq!(cut(&body, block(0, false, 0)), Some((body.slice(..16), block(0, true, 0))));
        assert_eq!(cut(&body, block(2, true, 0)), Some((body.slice(32..), block(2, false, 0))));
        assert_eq!(cut(&body, block(3, false, 0)), None);
        assert_eq!(cut(&body.slice(..32), block(2, false, 0)), None, "just behind the end");
        assert_eq!(cut(&Bytes::new(), block(0, false, 6)), Some((Bytes::new(), block(0, false, 6))));
        assert_eq!(cut(&body, block(BlockValue::MAX_NUM, false, 6)), None);
    }

    proptest! {
        #[test]
        fn reading_undoes_writing(num in 0..=BlockValue::MAX_NUM, more: bool, szx in 0..=6_u8) {
            let value = block(num, more, szx);
            prop_assert_eq!(BlockValue::decode(&value.encode()), Ok(value));
            prop_assert!(value.encode().first() != Some(&0));
        }

        #[test]
        fn the_blocks_of_a_body_are_the_body(length in 0_usize..3000, szx in 0..=6_u8) {
            let body = body(length);
            let whole: Vec<u8> = blocks(&body, szx).into_iter().flat_map(|(payload, _)| payload).collect();
            prop_assert_eq!(whole, body);
        }
    }
}

mod uploads {
    use super::*;

    fn send(uploads: &mut Uploads<u32>, peer: u32, name: &str, part: &(Bytes, BlockValue)) -> Upload {
        uploads.receive(0, &peer, one_of(what(name), part.1, None, &part.0))
    }

    #[test]
    fn blocks_in_order_make_the_body() {
        for (length, szx) in [(0, 6), (16, 0), (17, 0), (1000, 2), (4096, 6)] {
            let mut uploads = Uploads::new(LIMITS);
            let body = body(length);
            let parts = blocks(&body, szx);
            let (last, before) = parts.split_last().unwrap();
            for part in before {
                assert_eq!(send(&mut uploads, 1, "a", part), Upload::Continue(part.1));
            }
            assert_eq!(send(&mut uploads, 1, "a", last), Upload::Done { body, block: last.1 });
            assert_eq!((uploads.len(), uploads.bytes(), uploads.next_timeout()), (0, 0, None));
        }
    }

    #[test]
    fn a_repeated_block_changes_nothing() {
        let mut uploads = Uploads::new(LIMITS);
        let parts = blocks(&body(64), 0);
        for part in &parts[..3] {
            assert_eq!(send(&mut uploads, 1, "a", part), Upload::Continue(part.1));
            assert_eq!(send(&mut uploads, 1, "a", part), Upload::Continue(part.1));
        }
        assert_eq!(send(&mut uploads, 1, "a", &parts[1]), Upload::Continue(parts[1].1), "an older one");
        assert_eq!(send(&mut uploads, 1, "a", &parts[3]), Upload::Done { body: body(64), block: parts[3].1 });
        assert_eq!(send(&mut uploads, 1, "a", &parts[3]), incomplete(), "the transfer is over");
    }

    #[test]
    fn a_gap_is_told_and_may_be_filled() {
        let mut uploads = Uploads::new(LIMITS);
        let parts = blocks(&body(48), 0);
        assert_eq!(send(&mut uploads, 1, "a", &parts[1]), incomplete());
        assert_eq!(uploads.len(), 0, "a transfer begins at its beginning");
        send(&mut uploads, 1, "a", &parts[0]);
        assert_eq!(send(&mut uploads, 1, "a", &parts[2]), incomplete());
        send(&mut uploads, 1, "a", &parts[1]);
        assert_eq!(send(&mut uploads, 1, "a", &parts[2]), Upload::Done { body: body(48), block: parts[2].1 });
    }

    #[test]
    fn block_0_begins_anew() {
        let mut uploads = Uploads::new(LIMITS);
        let (old, new) =
            (blocks(&body(64), 0), blocks(&Bytes::from_static(b"another body of two blocks"), 0));
        send(&mut uploads, 1, "a", &old[0]);
        send(&mut uploads, 1, "a", &old[1]);
        assert_eq!(send(&mut uploads, 1, "a", &new[0]), Upload::Continue(new[0].1));
        assert_eq!(send(&mut uploads, 1, "a", &old[2]), incomplete(), "of the one before");
        let Upload::Done { body, .. } = send(&mut uploads, 1, "a", &new[1]) else { panic!("not done") };
        assert_eq!(body, "another body of two blocks");
    }

    #[test]
    fn a_block_that_contradicts_what_is_held_ends_the_transfer() {
        let mut uploads = Uploads::new(LIMITS);
        let parts = blocks(&body(64), 0);
        for contradiction in
            [(Bytes::from_static(&[9; 16]), block(1, true, 0)), (parts[1].0.clone(), block(1, false, 0))]
        {
            for part in &parts[..3] {
                send(&mut uploads, 1, "a", part);
            }
            assert_eq!(send(&mut uploads, 1, "a", &contradiction), incomplete());
            assert_eq!(uploads.len(), 0);
        }
        // One that reaches over the end of what is held.
        send(&mut uploads, 1, "a", &parts[0]);
        send(&mut uploads, 1, "a", &parts[1]);
        send(&mut uploads, 1, "a", &parts[2]);
        assert_eq!(send(&mut uploads, 1, "a", &(body(64).slice(32..), block(1, true, 1))), incomplete());
    }

    #[test]
    fn the_block_size_may_change_where_the_bytes_go_on() {
        let mut uploads = Uploads::new(LIMITS);
        let body = body(100);
        let send = |uploads: &mut Uploads<u32>, value: BlockValue| {
            let (payload, value) = cut(&body, value).unwrap();
            uploads.receive(0, &1, one_of(what("a"), value, None, &payload))
        };
        send(&mut uploads, block(0, true, 2));
        assert_eq!(
            send(&mut uploads, block(4, true, 0)),
            Upload::Continue(block(4, true, 0)),
            "from 64 to 16"
        );
        assert_eq!(send(&mut uploads, block(1, true, 2)), incomplete(), "64 again is not where it goes on");
    }

    #[test]
    fn two_transfers_never_mix() {
        let mut uploads = Uploads::new(LIMITS);
        let (a, b) = (blocks(&body(48), 0), blocks(&body(48).slice(1..), 0));
        for i in 0..2 {
            send(&mut uploads, 1, "a", &a[i]);
            send(&mut uploads, 1, "b", &b[i]);
            send(&mut uploads, 2, "a", &b[i]);
        }
        let done =
            |body: Bytes| move |upload| matches!(upload, Upload::Done { body: got, .. } if got == body);
        assert!(done(body(48))(send(&mut uploads, 1, "a", &a[2])));
        assert!(done(body(48).slice(1..))(send(&mut uploads, 1, "b", &b[2])));
        assert!(done(body(48).slice(1..))(send(&mut uploads, 2, "a", &b[2])));
    }

    /// What comes of blocks with tokens: `a0` is block 0 of the body a, with its token.
    fn play(uploads: &mut Uploads<u32>, steps: &[(&Bytes, &[u8], usize)]) -> Vec<Upload> {
        let take = |(body, token, num): &(&Bytes, &[u8], usize)| {
            let (payload, block) = blocks(body, 0).swap_remove(*num);
            let part = one_of(what("a"), block, None, &payload);
            uploads.receive(0, &1, Part { token: Token::new(token).unwrap(), ..part })
        };
        steps.iter().map(take).collect()
    }

    #[test]
    fn a_late_block_of_an_upload_that_was_begun_anew_is_none_of_the_next() {
        let (a, b, c) = (body(32), Bytes::from(vec![b'b'; 40]), Bytes::from(vec![b'c'; 40]));
        let done = |body: &Bytes, num| Upload::Done { body: body.clone(), block: block(num, false, 0) };
        let more = |num| Upload::Continue(block(num, true, 0));
        // The last block of the first came late: both bytes together were never sent.
        let mut uploads = Uploads::new(LIMITS);
        let steps: &[(&Bytes, &[u8], usize)] =
            &[(&a, b"a", 0), (&b, b"b", 0), (&a, b"a", 1), (&b, b"b", 1), (&a, b"a", 1), (&b, b"b", 2)];
        let expected = [more(0), more(0), incomplete(), more(1), incomplete(), done(&b, 2)];
        assert_eq!(play(&mut uploads, steps), expected);
        // Two are begun anew; a device that takes another token for each block goes on with the third.
        let steps: &[(&Bytes, &[u8], usize)] = &[
            (&a, b"a", 0),
            (&b, b"b", 0),
            (&c, b"c", 0),
            (&a, b"a", 1),
            (&b, b"b", 1),
            (&c, b"d", 1),
            (&c, b"a", 2),
        ];
        let expected = [more(0), more(0), more(0), incomplete(), incomplete(), more(1), done(&c, 2)];
        assert_eq!(play(&mut uploads, steps), expected);
        assert!(uploads.is_empty());
    }

    #[test]
    fn what_was_begun_anew_is_remembered_within_a_bound() {
        let mut uploads = Uploads::new(LIMITS);
        let a = body(32);
        for token in 0..200_u8 {
            assert_eq!(play(&mut uploads, &[(&a, &[token], 0)]), [Upload::Continue(block(0, true, 0))]);
        }
        assert_eq!(play(&mut uploads, &[(&a, &[198], 1)]), [incomplete()]);
        assert_eq!(uploads.bytes(), BodyLimits::OVERHEAD + 16);
        assert_eq!(play(&mut uploads, &[(&a, &[0], 0), (&a, &[0], 1)]).len(), 2, "the device itself goes on");
        assert!(uploads.is_empty());
    }

    #[test]
    fn a_block_is_as_long_as_it_says() {
        let mut uploads = Uploads::new(LIMITS);
        for (length, value) in [
            (15, block(0, true, 0)),
            (17, block(0, true, 0)),
            (17, block(0, false, 0)),
            (0, block(0, true, 6)),
        ] {
            let upload = uploads.receive(0, &1, one_of(what("a"), value, None, &body(length)));
            assert_eq!(upload, Upload::Refuse(Refusal::Bad), "{length} bytes as {value:?}");
        }
        assert_eq!(uploads.len(), 0);
    }

    #[test]
    fn a_body_has_a_longest_length() {
        let too_large = Upload::Refuse(Refusal::TooLarge { max: 4096 });
        let mut uploads = Uploads::new(LIMITS);
        let parts = blocks(&body(4097), 6);
        let (last, before) = parts.split_last().unwrap();
        for part in before {
            assert_eq!(send(&mut uploads, 1, "a", part), Upload::Continue(part.1));
        }
        assert_eq!(send(&mut uploads, 1, "a", last), too_large);
        assert_eq!(uploads.len(), 0, "nobody goes on with it");
        let far = block(BlockValue::MAX_NUM, true, 6);
        assert_eq!(uploads.receive(0, &1, one_of(what("a"), far, None, &body(1024))), too_large);
    }

    #[test]
    fn size1_is_held_against_the_limit_and_believed_in_nothing_else() {
        let mut uploads = Uploads::new(LIMITS);
        let first = block(0, true, 0);
        let huge = uploads.receive(0, &1, one_of(what("a"), first, Some(u64::MAX), &body(16)));
        assert_eq!(huge, Upload::Refuse(Refusal::TooLarge { max: 4096 }));
        uploads.receive(0, &1, one_of(what("a"), first, Some(4096), &body(16)));
        assert!(uploads.bytes() < BodyLimits::OVERHEAD + 64, "no room was made for what was said");
        uploads.receive(0, &1, one_of(what("a"), first, Some(0), &body(16)));
        let more =
            uploads.receive(0, &1, one_of(what("a"), block(1, true, 0), Some(1), &body(32).slice(16..)));
        assert_eq!(more, Upload::Continue(block(1, true, 0)), "longer than it said");
    }

    #[test]
    fn what_lies_still_goes_and_what_takes_too_long_too() {
        let mut uploads = Uploads::new(LIMITS);
        let parts = blocks(&body(512), 0);
        let send = |uploads: &mut Uploads<u32>, now, i: usize| {
            uploads.receive(now, &1, one_of(what("a"), parts[i].1, None, &parts[i].0))
        };
        send(&mut uploads, 0, 0);
        assert_eq!(uploads.next_timeout(), Some(1_000));
        assert_eq!(send(&mut uploads, 999, 1), Upload::Continue(parts[1].1));
        assert_eq!(send(&mut uploads, 1_999, 2), incomplete());
        send(&mut uploads, 2_000, 0);
        for (i, now) in (2_900..7_000).step_by(900).enumerate() {
            assert_eq!(send(&mut uploads, now, i + 1), Upload::Continue(parts[i + 1].1));
        }
        assert_eq!(uploads.next_timeout(), Some(7_000));
        assert_eq!(uploads.expire(6_999), 0);
        assert_eq!((uploads.expire(7_000), uploads.len(), uploads.bytes()), (1, 0, 0));
    }

    #[test]
    fn transfers_that_nobody_finishes_fill_no_memory() {
        let mut uploads = Uploads::new(LIMITS);
        let busy = |max_age| Upload::Refuse(Refusal::Busy { max_age });
        let part = (body(16), block(0, true, 0));
        assert!(matches!(send(&mut uploads, 0, "a", &part), Upload::Continue(_)));
        assert!(matches!(send(&mut uploads, 0, "b", &part), Upload::Continue(_)));
        assert_eq!(send(&mut uploads, 0, "c", &part), busy(1), "no peer has more than its share");
        assert!(!uploads.is_pressed());
        for peer in 1..100_000_u32 {
            let upload = send(&mut uploads, peer, "a", &part);
            assert_eq!(matches!(upload, Upload::Continue(_)), peer <= 6, "peer {peer}");
        }
        assert_eq!(uploads.len(), LIMITS.bodies);
        assert!(uploads.bytes() <= LIMITS.bytes && uploads.is_pressed());
        assert!(uploads.has(&6) && !uploads.has(&7));
        // Who is under way goes on, and room that is free again is given.
        assert!(matches!(
            send(&mut uploads, 0, "a", &(body(32).slice(16..), block(1, true, 0))),
            Upload::Continue(_)
        ));
        let last = (body(16), block(2, false, 0));
        assert!(matches!(send(&mut uploads, 0, "a", &last), Upload::Done { .. }));
        assert!(matches!(send(&mut uploads, 7, "a", &part), Upload::Continue(_)));
        assert_eq!(uploads.expire(1_000), 8);
        assert!(uploads.is_empty() && uploads.bytes() == 0);
    }

    #[test]
    fn all_bodies_together_have_a_bound_in_bytes() {
        let mut uploads = Uploads::new(LIMITS);
        let parts = blocks(&body(4096), 6);
        let mut refused = 0;
        for part in &parts[..3] {
            for peer in 0..8 {
                let upload = send(&mut uploads, peer, "a", part);
                refused += u32::from(matches!(upload, Upload::Refuse(Refusal::Busy { .. })));
                assert!(uploads.bytes() <= LIMITS.bytes, "{}", uploads.bytes());
            }
        }
        assert!(refused > 0);
    }

    #[derive(Clone, Debug)]
    struct Step {
        peer: u8,
        name: usize,
        num: u32,
        more: bool,
        szx: u8,
        length: usize,
        byte: u8,
        wait: u64,
    }

    fn step() -> impl Strategy<Value = Step> {
        let value = (0_u32..6, any::<bool>(), 0_u8..3);
        let rest = (
            0..4_u8,
            0..3_usize,
            prop_oneof![4 => Just(None), 1 => (0..80_usize).prop_map(Some)],
            0..2_u8,
            0..300_u64,
        );
        (value, rest).prop_map(|((num, more, szx), (peer, name, length, byte, wait))| Step {
            peer,
            name,
            num,
            more,
            szx,
            length: length.unwrap_or(16 << szx),
            byte,
            wait,
        })
    }

    proptest! {
        /// Whatever comes, a body that is done is the one that the blocks since its block 0 spell, and the bounds hold.
        #[test]
        fn against_a_model(steps in prop::collection::vec(step(), 1..200)) {
            let limits = BodyLimits { body: 200, bodies: 5, per_peer: 2, bytes: 2_000, idle_ms: 1_000, whole_ms: 4_000 };
            let mut uploads = Uploads::new(limits);
            let mut model = std::collections::HashMap::<(u8, usize), Vec<u8>>::new();
            let mut now = 0;
            for step in steps {
                now += step.wait;
                let key = (step.peer, step.name);
                let value = block(step.num, step.more, step.szx);
                let payload = vec![step.byte; step.length];
                let upload = uploads.receive(now, &step.peer, one_of(what(["a", "b", "c"][step.name]), value, None, &payload));
                match upload {
                    Upload::Continue(answer) => {
                        prop_assert_eq!(answer, value);
                        let held = model.entry(key).or_default();
                        if step.num == 0 {
                            held.clear();
                        }
                        if held.len() == value.offset() {
                            held.extend(payload);
                        } else {
                            prop_assert_eq!(held.get(value.offset()..value.offset() + payload.len()), Some(&payload[..]));
                        }
                    }
                    Upload::Done { body, .. } => {
                        let mut held = model.remove(&key).filter(|_| step.num > 0).unwrap_or_default();
                        held.extend(payload);
                        prop_assert_eq!(body, held);
                    }
                    Upload::Refuse(_) => {}
                }
                prop_assert!(uploads.len() <= limits.bodies && uploads.bytes() <= limits.bytes);
            }
            uploads.expire(now + limits.idle_ms);
            prop_assert!(uploads.is_empty() && uploads.bytes() == 0 && uploads.next_timeout().is_none());
        }
    }
}

mod downloads {
    use super::*;

    fn start(downloads: &mut Downloads<u32, &'static str>, now: u64, peer: u32, name: &str, body: &Bytes) {
        downloads.start(now, &peer, what(name), "head", body.clone(), BlockValue::first(0)).unwrap();
    }

    #[test]
    fn a_client_gets_every_block_of_one_body() {
        let mut downloads = Downloads::new(LIMITS);
        let body = body(100);
        let first = downloads.start(0, &1, what("a"), "head", body.clone(), BlockValue::first(1)).unwrap();
        assert_eq!((first.block, first.total, first.head), (block(0, true, 1), 100, "head"));
        let mut whole = first.payload.to_vec();
        for num in 1..4 {
            let piece = downloads.resume(0, &1, what("a"), block(num, false, 1)).unwrap();
            assert_eq!((piece.etag, piece.head, piece.block.more()), (first.etag, "head", num < 3));
            whole.extend(piece.payload);
        }
        assert_eq!(whole, body);
        let again = downloads.resume(0, &1, what("a"), block(3, false, 1)).unwrap();
        assert_eq!(again.payload, body.slice(96..), "a repeated question");
        let smaller = downloads.resume(0, &1, what("a"), block(3, false, 0)).unwrap();
        assert_eq!(smaller.payload, body.slice(48..64), "in smaller blocks");
    }

    #[test]
    fn a_body_of_one_block_is_not_kept() {
        let mut downloads = Downloads::new(LIMITS);
        let piece = downloads.start(0, &1, what("a"), (), body(1024), BlockValue::first(6)).unwrap();
        assert!(!piece.block.more() && downloads.is_empty());
    }

    #[test]
    fn blocks_of_what_is_not_there_are_refused() {
        let mut downloads = Downloads::new(LIMITS);
        assert_eq!(downloads.resume(0, &1, what("a"), block(1, false, 0)), Err(Refusal::Incomplete));
        start(&mut downloads, 0, 1, "a", &body(32));
        assert_eq!(downloads.resume(0, &1, what("a"), block(2, false, 0)), Err(Refusal::Bad));
        assert_eq!(
            downloads.resume(0, &2, what("a"), block(1, false, 0)),
            Err(Refusal::Incomplete),
            "another's"
        );
        assert!(downloads.resume(0, &1, what("a"), block(1, false, 0)).is_ok(), "it is there still");
        assert!(downloads.resume(999, &1, what("a"), block(1, false, 0)).is_ok());
        assert_eq!(
            downloads.resume(1_999, &1, what("a"), block(1, false, 0)),
            Err(Refusal::Incomplete),
            "too late"
        );
        assert_eq!(downloads.start(0, &1, what("a"), "", body(4097), BlockValue::first(6)), None);
    }

    #[test]
    fn another_body_has_another_tag() {
        let mut downloads = Downloads::new(LIMITS);
        let mut tag = |body| downloads.start(0, &1, what("a"), "", body, BlockValue::first(0)).unwrap().etag;
        assert_eq!(tag(body(40)), tag(body(40)));
        assert_ne!(tag(body(40)), tag(body(41)));
        assert_eq!(downloads.len(), 1, "the newer took the place of the older");
    }

    #[test]
    fn where_there_is_no_room_the_first_to_go_yields() {
        let mut downloads = Downloads::new(LIMITS);
        start(&mut downloads, 0, 1, "a", &body(40));
        start(&mut downloads, 1, 1, "b", &body(40));
        start(&mut downloads, 2, 1, "c", &body(40));
        assert_eq!(downloads.len(), LIMITS.per_peer);
        assert!(downloads.resume(2, &1, what("a"), block(1, false, 0)).is_err());
        for peer in 2..1_000 {
            start(&mut downloads, 3, peer, "a", &body(4096));
            assert!(downloads.bytes() <= LIMITS.bytes && downloads.len() <= LIMITS.bodies);
            assert!(downloads.has(&peer));
        }
        assert_eq!(downloads.next_timeout(), Some(1_003));
        downloads.expire(1_003);
        assert!(downloads.is_empty() && downloads.bytes() == 0);
    }
}
