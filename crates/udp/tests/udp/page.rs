//! The examples of `docs/udp.md` are what the page says they are.

use std::fs;

use landfall_udp::Line;

use crate::world::signed;

#[test]
fn the_lines_of_the_page_are_read() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/udp.md")).unwrap();
    let (_, behind) = page.split_once("```lf1\n").unwrap();
    let (block, _) = behind.split_once("```").unwrap();
    let lines: Vec<Line<'_>> = block.lines().map(|line| Line::parse(line.as_bytes()).expect(line)).collect();
    assert_eq!(lines.len(), 9);
    assert_eq!((&lines[4].device, &lines[4].tenant), (&lines[5].device, &lines[5].tenant));
    let signature = signed("s3cret", "LF1 pump-17 seq=1764000000001 ack", "21.5");
    let signature = String::from_utf8(signature).unwrap().replace('\n', "\\n");
    assert!(page.contains(&format!("printf '{signature}'")), "{signature}");
}
