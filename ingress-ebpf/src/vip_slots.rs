//! The index of VIPs: which slot names which, and in what order slots change under a program that
//! reads them.

use crate::abi::{Abi, VIP_SLOTS, VipKey4, VipKey6, VipSlot4, VipSlot6, VipValue, vip_flags};

/// A key of VIPs and the slot that it is kept in.
pub trait Slotted: Abi {
    /// `VipSlot4` or `VipSlot6`.
    type Slot: Abi + Default + PartialEq;

    /// Which slot.
    fn place(&self) -> u32;
    /// The slot of this key.
    fn slot(self, value: VipValue) -> Self::Slot;
    /// What a slot says of its VIP, and its flags.
    fn value(slot: &mut Self::Slot) -> &mut VipValue;
}

impl Slotted for VipKey4 {
    type Slot = VipSlot4;

    fn place(&self) -> u32 {
        Self::slot(self)
    }

    fn slot(self, value: VipValue) -> VipSlot4 {
        VipSlot4 { key: self, value }
    }

    fn value(slot: &mut VipSlot4) -> &mut VipValue {
        &mut slot.value
    }
}

impl Slotted for VipKey6 {
    type Slot = VipSlot6;

    fn place(&self) -> u32 {
        Self::slot(self)
    }

    fn slot(self, value: VipValue) -> VipSlot6 {
        VipSlot6 { key: self, value }
    }

    fn value(slot: &mut VipSlot6) -> &mut VipValue {
        &mut slot.value
    }
}

/// The slots of these VIPs: the first of those that share one has it.
pub fn slots<K: Slotted>(vips: impl IntoIterator<Item = (K, VipValue)>) -> Vec<K::Slot> {
    let mut slots = vec![K::Slot::default(); VIP_SLOTS];
    for (key, mut value) in vips {
        let Some(slot) = slots.get_mut(key.place() as usize) else {
            continue;
        };
        let flags = &mut K::value(slot).flags;
        if *flags & vip_flags::TAKEN == 0 {
            value.flags |= vip_flags::TAKEN;
            *slot = key.slot(value);
        } else {
            *flags |= vip_flags::SHARED;
        }
    }
    slots
}

/// What is to be stored, one after the other, to change a slot from `before` to `after`.
///
/// A program may read a slot while it is being stored, and see the key of one value and the rest of
/// another. So a key is never there with what belongs to another VIP, whichever half of a store comes
/// first: meanwhile the slot names none and leads to the hash map, which must hold both.
pub fn steps<K: Slotted>(mut before: K::Slot, mut after: K::Slot) -> Vec<K::Slot> {
    if before == after {
        return Vec::new();
    }
    let (old, new) = (*K::value(&mut before), *K::value(&mut after));
    let unnamed = |value: VipValue| {
        let mut slot = K::Slot::default();
        *K::value(&mut slot) = VipValue {
            flags: vip_flags::SHARED,
            ..value
        };
        slot
    };
    let mut same_key = before;
    *K::value(&mut same_key) = new;
    if same_key == after {
        // Flags, set and counters: whichever part of them is seen, it is of the same VIP.
        return vec![after];
    }
    let mut closed = before;
    K::value(&mut closed).flags = vip_flags::SHARED;
    let mut opening = after;
    K::value(&mut opening).flags = vip_flags::SHARED;
    vec![closed, unnamed(old), unnamed(new), opening, after]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{bytes, service};

    fn key(last: u8, port: u16) -> VipKey4 {
        VipKey4 {
            address: u32::from_ne_bytes([198, 51, 100, last]),
            service: service(port.to_be(), 6),
        }
    }

    fn value(index: u32) -> VipValue {
        VipValue {
            index,
            ..VipValue::default()
        }
    }

    /// Two keys that have the same slot.
    fn rivals() -> (VipKey4, VipKey4) {
        let first = key(1, 80);
        let others = (0..=u8::MAX).flat_map(|last| (1..u16::MAX).map(move |port| key(last, port)));
        let second = others
            .filter(|other| *other != first)
            .find(|other| other.place() == first.place());
        (first, second.unwrap())
    }

    #[test]
    fn a_vip_has_its_slot_and_those_that_share_one_say_so() {
        let (first, second) = rivals();
        let alone = slots([(first, value(7))]);
        let slot = alone[first.place() as usize];
        assert_eq!((slot.key, slot.value.index), (first, 7));
        assert_eq!(slot.value.flags, vip_flags::TAKEN);
        assert_eq!(
            alone
                .iter()
                .filter(|slot| **slot != VipSlot4::default())
                .count(),
            1
        );
        let both = slots([(first, value(7)), (second, value(8))]);
        let slot = both[first.place() as usize];
        assert_eq!((slot.key, slot.value.index), (first, 7));
        assert_eq!(slot.value.flags, vip_flags::TAKEN | vip_flags::SHARED);
    }

    #[test]
    fn a_vip_of_either_family_lies_where_the_program_looks() {
        for port in [80, 443, 8443] {
            let four = key(1, port);
            let at = VipKey4::slot(&four) as usize;
            assert_eq!(slots([(four, value(7))])[at].key, four, "{port}");
            let six = VipKey6 {
                address: [0x20, 0x01, 0x0d, 0xb8],
                service: four.service,
            };
            let at = VipKey6::slot(&six) as usize;
            let slot = slots([(six, value(7))])[at];
            assert_eq!((slot.key, slot.value.index), (six, 7), "{port}");
            assert_eq!(slot.value.flags, vip_flags::TAKEN, "{port}");
        }
    }

    #[test]
    fn the_few_vips_of_a_cluster_rarely_share_a_slot() {
        let vips =
            (0..32u8).flat_map(|last| [(key(last, 80), value(0)), (key(last, 443), value(0))]);
        let shared = slots(vips.clone())
            .iter()
            .filter(|slot| slot.value.flags & vip_flags::SHARED != 0)
            .count();
        assert!(shared < 8, "{shared} of {}", vips.count());
    }

    /// What a program finds that reads eight-byte words, each before or after a store.
    fn torn(before: &VipSlot4, after: &VipSlot4) -> [(VipKey4, VipValue); 4] {
        [
            (before.key, before.value),
            (before.key, after.value),
            (after.key, before.value),
            (after.key, after.value),
        ]
    }

    #[test]
    fn a_slot_never_names_a_vip_with_what_is_said_of_another() {
        let (first, second) = rivals();
        let of = |vips: &[(VipKey4, VipValue)]| slots(vips.iter().copied())[first.place() as usize];
        let states = [
            of(&[]),
            of(&[(first, value(7))]),
            of(&[(second, value(8))]),
            of(&[(first, value(7)), (second, value(8))]),
            of(&[(second, value(8)), (first, value(7))]),
        ];
        for before in states {
            for after in states {
                let mut now = before;
                for next in steps::<VipKey4>(before, after) {
                    for (key, value) in torn(&now, &next) {
                        if value.flags & vip_flags::TAKEN != 0 {
                            let index = if key == first { 7 } else { 8 };
                            assert_eq!(value.index, index, "{key:?} from {before:?} to {after:?}");
                        } else if value.flags & vip_flags::SHARED == 0 {
                            // Only where there is none, before or after.
                            assert!(
                                [before, after].contains(&VipSlot4::default()),
                                "nobody, from {before:?} to {after:?}"
                            );
                        }
                    }
                    now = next;
                }
                assert_eq!(bytes(&now), bytes(&after));
            }
        }
    }
}
