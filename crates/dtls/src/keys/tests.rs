use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The vector that implementers of TLS 1.2 passed around; `openssl kdf TLS1-PRF` says the same.
#[test]
fn the_pseudorandom_function() {
    let secret = 0x9bbe_436b_a940_f017_b176_5284_9a71_db35_u128.to_be_bytes();
    let seed = 0xa0ba_9f93_6cda_3118_27a6_f796_ffd5_198c_u128.to_be_bytes();
    let mut out = [0; 100];
    prf(&secret, b"test label", &[&seed], &mut out);
    let expected = "e3f229ba727be17b8d122620557cd453c2aab21d07c3d495329b52d4e61edb5a6b301791e90d35c9c9a46b4e14baf9af\
         0fa022f7077def17abfd3797c0564bab4fbc91666e9def9b97fce34f796789baa48082d122ee42c5a72e5a5110fff70187347b66";
    assert_eq!(hex(&out), expected);
}

#[test]
fn a_psk_premaster_is_as_many_zeros_and_the_key() {
    assert_eq!(psk_premaster(b"abc").as_slice(), b"\0\x03\0\0\0\0\x03abc");
}

/// Against hashlib.
#[test]
fn keys_and_verify_data() {
    let master = Master::classic(b"premaster", &[[1; 32], [2; 32]]);
    let keys = master.traffic_keys(&[[1; 32], [2; 32]], 16);
    assert_eq!(hex(&keys.client.key[..16]), "f84094838daa7f019e584f1cdc8f5779");
    assert_eq!(hex(&keys.server.key[..16]), "854af2ce78334dca8deb962098fd132b");
    assert_eq!((hex(&keys.client.salt), hex(&keys.server.salt)), ("4cc822ce".into(), "8202677a".into()));
    let keys = master.traffic_keys(&[[1; 32], [2; 32]], 32);
    let both = [hex(&keys.client.key), hex(&keys.server.key)];
    assert_eq!(both[0], "f84094838daa7f019e584f1cdc8f5779854af2ce78334dca8deb962098fd132b");
    assert_eq!(both[1], "4cc822ce8202677ac1cfe3dae214d1b6b64ca052af8ffc92e5f75874d10149e7");
    assert_eq!((hex(&keys.client.salt), hex(&keys.server.salt)), ("293ee921".into(), "59ba1458".into()));
    let master = Master::extended(b"premaster", &[3; 32]);
    assert_eq!(hex(&master.verify_data(Side::Client, &[4; 32])), "868febf04a37013ef86b666d");
    assert_eq!(hex(&master.verify_data(Side::Server, &[4; 32])), "0ba924284ab30e27d837c38c");
}
