//! Any frame, against tables in which everything is found: no read past the end, no verdict that
//! points outside.
#![no_main]

use ingress_ebpf::{
    abi::{Bucket, ENCAP_PORT, MacKey, Meta, Node, SelfNode, Steer, VipKey, VipValue, node_flags},
    encap::OVERHEAD,
    hash::Flow,
    verdict::{self, Tables, Verdict},
};
use libfuzzer_sys::fuzz_target;

/// Every address is a VIP and a peer; the first byte of the input says who owns it and how it is
/// reached.
struct Everything {
    meta: Meta,
    this_node: SelfNode,
    vip: VipValue,
    bucket: Bucket,
    node: Node,
    is_peer: bool,
    is_listening: bool,
}

impl Everything {
    /// `frame` is for this node if its bytes leave any way that it could be.
    fn new(choice: u8, frame: &[u8]) -> Self {
        let mac = frame.first_chunk::<6>().copied().unwrap_or_default();
        let ip4 = frame
            .get(30..34)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u32::from_ne_bytes)
            .unwrap_or_default();
        let l2 = if choice & 1 == 0 { 0 } else { node_flags::L2 };
        Self {
            meta: Meta {
                seed: [1, 2],
                ..Meta::default()
            },
            this_node: SelfNode {
                id: 1,
                ip4,
                macs: [mac; 4],
                ..SelfNode::default()
            },
            vip: VipValue::default(),
            bucket: Bucket {
                hops: [u16::from(choice >> 1 & 3), 2, 3],
            },
            node: Node {
                flags: node_flags::V4 | l2,
                mtu: 1500,
                ..Node::default()
            },
            is_peer: choice & 8 != 0,
            is_listening: choice & 16 != 0,
        }
    }
}

impl Tables for Everything {
    fn meta(&self) -> Option<&Meta> {
        Some(&self.meta)
    }

    fn this_node(&self) -> Option<&SelfNode> {
        Some(&self.this_node)
    }

    fn vip(&self, _: &VipKey) -> Option<&VipValue> {
        Some(&self.vip)
    }

    fn bucket(&self, _: u8, index: u32) -> Option<&Bucket> {
        assert!(index < 65_537, "bucket {index}");
        Some(&self.bucket)
    }

    fn node(&self, _: u16) -> Option<&Node> {
        Some(&self.node)
    }

    fn is_peer(&self, _: &[u8; 16]) -> bool {
        true
    }

    fn is_peer_mac(&self, _: &MacKey) -> bool {
        self.is_peer
    }

    fn is_listening(&self, _: u8, _: Flow, _: [u32; 2]) -> bool {
        self.is_listening
    }
}

/// Makes most frames plausible: a guess of the right ethertype, version, protocol and length takes
/// for ever.
fn plausible(choice: u8, bytes: &[u8]) -> Vec<u8> {
    let mut frame = bytes.to_vec();
    let length = u16::try_from(frame.len().saturating_sub(14)).unwrap_or(u16::MAX);
    if choice & 32 == 0 && frame.len() >= 34 {
        frame[12..15].copy_from_slice(&[0x08, 0x00, 0x45]);
        frame[16..18].copy_from_slice(&length.to_be_bytes());
        frame[20..22].fill(0);
        frame[23] = if choice & 64 == 0 { 6 } else { 17 };
    }
    if choice & 160 == 128 && frame.len() >= 90 {
        // As a peer sends it: UDP to our port, our header, a TCP packet inside.
        frame[23] = 17;
        frame[36..38].copy_from_slice(&ENCAP_PORT.to_be_bytes());
        frame[38..40].copy_from_slice(&(length - 20).to_be_bytes());
        frame[42..44].copy_from_slice(&[Steer::VERSION_LENGTH, 0]);
        frame[50] = 0x45;
        frame[52..54].copy_from_slice(&(length - 36).to_be_bytes());
        frame[56..58].fill(0);
        frame[59] = 6;
    }
    frame
}

fuzz_target!(|input: &[u8]| {
    let Some((choice, bytes)) = input.split_first() else {
        return;
    };
    let frame = plausible(*choice, bytes);
    match verdict::steer(frame.as_slice(), &Everything::new(*choice, &frame)) {
        Verdict::ForwardUdp { network, outer } => {
            assert!(
                network + usize::from(outer.inner_length) <= frame.len(),
                "the packet is longer than the frame"
            );
            assert!(
                usize::from(outer.inner_length) + OVERHEAD <= 1500,
                "the packet is longer than the MTU"
            );
            assert_eq!(outer.headers()[0], 0x45);
        }
        Verdict::Decapsulate { network } => {
            assert!(network + OVERHEAD < frame.len(), "nothing is inside");
        }
        Verdict::ForwardL2 { .. } | Verdict::Pass(_) | Verdict::Drop(_) => {}
    }
});
