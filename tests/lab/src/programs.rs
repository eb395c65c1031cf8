//! The kernel programs on maps of a fixture world, without pins or links: for test runs of single
//! frames.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf, Pod, TestRun, TestRunOptions,
    maps::{Array, ArrayOfMaps, HashMap, MapData, PerCpuArray},
    programs::{SkLookup, Xdp},
};
use ingress_ebpf::{
    abi::{
        self, Abi, Bucket, FirstHops, Interface, Interfaces, MAGIC, Meta, NODES, Node,
        PEER_MAC_BITS, POOLS, SCHEMA, TABLE_LEN, Unit, VipKey4, VipKey6, VipSlot4, VipSlot6,
        VipValue,
    },
    encap::OVERHEAD6,
    fixtures::{Action, World},
    maglev,
    reason::Reason,
    vip_slots,
};

/// The loaded object and its filled maps.
pub struct Programs {
    ebpf: Ebpf,
}

/// What one test run did.
#[derive(Clone, Debug)]
pub struct Run {
    /// What the program answered.
    pub action: Action,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// Time of one run, the mean of all repetitions.
    pub duration: Duration,
}

impl Programs {
    /// Loads the programs that userspace carries and fills the maps.
    ///
    /// # Errors
    /// The binary carries no kernel object, or the process lacks the privilege.
    pub fn load(world: &World) -> Result<Self> {
        let object = ingress_agent::kernel::object().context("built without the kernel object")?;
        Self::load_object(world, object, &["steer", "pass"])
    }

    /// Loads, from [`undoing_object`], programs that put each frame back as it was; `steer_many` and
    /// `pass_many` are the same for another source port each time.
    ///
    /// # Errors
    /// The object was not built, or the process lacks the privilege.
    pub fn load_undoing(world: &World) -> Result<Self> {
        let path = undoing_object();
        let object = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        Self::load_object(
            world,
            &object,
            &["steer", "pass", "steer_many", "pass_many"],
        )
    }

    /// Loads, from [`logging_object`], programs that write a line for each packet.
    ///
    /// # Errors
    /// The object was not built, or the kernel refuses it.
    pub fn load_logging(world: &World) -> Result<Self> {
        let path = logging_object();
        let object = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        Self::load_object(world, &object, &["steer", "pass"])
    }

    fn load_object(world: &World, object: &[u8], names: &[&str]) -> Result<Self> {
        let mut ebpf = Ebpf::load(object)?;
        for name in names {
            xdp(&mut ebpf, name)?
                .load()
                .with_context(|| format!("load {name}"))?;
        }
        let assign: &mut SkLookup = ebpf
            .program_mut("assign")
            .context("no program assign")?
            .try_into()?;
        assign.load().context("load assign")?;
        fill(&mut ebpf, world)?;
        Ok(Self { ebpf })
    }

    /// Puts `assign` on the calling thread's network namespace, until dropped.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn attach_assign(&mut self) -> Result<()> {
        let assign: &mut SkLookup = self
            .ebpf
            .program_mut("assign")
            .context("no program assign")?
            .try_into()?;
        let namespace = fs::File::open("/proc/thread-self/ns/net")?;
        assign.attach(namespace)?;
        Ok(())
    }

    /// Runs a program `repeat` times on a frame of at least 14 bytes.
    ///
    /// # Errors
    /// The kernel refuses, or the program answers something else than pass, drop, transmit or redirect.
    pub fn run(&self, program: &str, frame: &[u8], repeat: u32) -> Result<Run> {
        let xdp: &Xdp = self
            .ebpf
            .program(program)
            .context("no such program")?
            .try_into()?;
        let mut output = vec![0; frame.len() + OVERHEAD6 + 4];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut output),
            repeat,
            ..Default::default()
        };
        let result = xdp.test_run(options)?;
        let action = match result.return_value {
            1 => Action::Drop,
            2 => Action::Pass,
            3 => Action::Transmit,
            4 => Action::Redirect,
            other => anyhow::bail!("{program} answered {other}"),
        };
        output.truncate(result.data_size_out as usize);
        Ok(Run {
            action,
            frame: output,
            duration: result.duration,
        })
    }

    /// Every reason's count, added up over the CPUs.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn counters(&self) -> Result<Vec<(Reason, u64)>> {
        let counters: PerCpuArray<_, u64> = self
            .ebpf
            .map("COUNTERS")
            .context("no COUNTERS")?
            .try_into()?;
        let sum = |reason: &Reason| Ok((*reason, counters.get(&reason.index(), 0)?.iter().sum()));
        Reason::ALL.iter().map(sum).collect()
    }

    /// What came for the VIP of this index, added up over the CPUs: packets, bytes, SYNs, drops.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn vip_counters(&self, index: u32) -> Result<[u64; 4]> {
        self.four_counters("VIP_COUNTERS", index)
    }

    /// What went to a node and came from it, added up over the CPUs: forwarded, second chances,
    /// decapsulated, skewed.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn node_counters(&self, id: u16) -> Result<[u64; 4]> {
        self.four_counters("NODE_COUNTERS", id.into())
    }

    fn four_counters(&self, name: &str, index: u32) -> Result<[u64; 4]> {
        let map = self.ebpf.map(name).with_context(|| format!("no {name}"))?;
        let counters: PerCpuArray<_, [u64; 4]> = map.try_into()?;
        let mut sums = [0; 4];
        for of_cpu in counters.get(&index, 0)?.iter() {
            for (sum, count) in sums.iter_mut().zip(of_cpu) {
                *sum += count;
            }
        }
        Ok(sums)
    }

    /// How many instructions the verifier walked through for each program.
    ///
    /// # Errors
    /// The kernel does not tell (before Linux 5.16).
    pub fn verified_instructions(&self) -> Result<Vec<(String, u32)>> {
        let count = |(name, program): (&str, &aya::programs::Program)| {
            let count = program
                .info()?
                .verified_instruction_count()
                .context("the kernel does not tell")?;
            Ok((name.to_owned(), count))
        };
        self.ebpf.programs().map(count).collect()
    }
}

/// Where `cargo xtask test` and `cargo xtask bench steer` put the object whose programs undo what
/// they did: in cargo's target directory.
pub fn undoing_object() -> PathBuf {
    target().join("ebpf-undo/forebay.bpf.o")
}

/// Where `cargo xtask test` and `cargo xtask build-ebpf --packet-log` put the object whose programs
/// write a line for each packet.
pub fn logging_object() -> PathBuf {
    target().join("ebpf-log/forebay.bpf.o")
}

fn target() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    workspace.join(target)
}

fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    Ok(ebpf
        .program_mut(name)
        .with_context(|| format!("no program {name}"))?
        .try_into()?)
}

/// Fills the second of the two units, so that a program that reads the first one is found out.
fn fill(ebpf: &mut Ebpf, world: &World) -> Result<()> {
    const UNIT: u32 = 1;
    let mut fresh = Array::<MapData, [u8; size_of::<Bucket>()]>::create(TABLE_LEN as u32, 0)?;
    for (index, bucket) in (0..).zip(&world.table) {
        fresh.set(index, plain(bucket)?, 0)?;
    }
    let tables = ebpf.map_mut("TABLES").context("no TABLES")?;
    ArrayOfMaps::<_, Array<MapData, [u8; size_of::<Bucket>()]>>::try_from(tables)?.set(
        UNIT * POOLS as u32,
        &fresh,
        0,
    )?;
    let hops = maglev::first_hops(&world.table);
    let mut fresh = Array::<MapData, [u8; size_of::<FirstHops>()]>::create(hops.len() as u32, 0)?;
    for (index, value) in (0..).zip(&hops) {
        fresh.set(index, plain(value)?, 0)?;
    }
    let tables = ebpf.map_mut("FIRST_HOPS").context("no FIRST_HOPS")?;
    ArrayOfMaps::<_, Array<MapData, [u8; size_of::<FirstHops>()]>>::try_from(tables)?.set(
        UNIT * POOLS as u32,
        &fresh,
        0,
    )?;

    let meta = Meta {
        magic: MAGIC,
        schema: SCHEMA,
        current: UNIT as u16,
    };
    set::<{ size_of::<Meta>() }>(ebpf, "META", 0, plain(&meta)?)?;
    set::<{ size_of::<Unit>() }>(ebpf, "UNITS", UNIT, plain(&world.unit)?)?;
    let mut interfaces = Interfaces::default();
    interfaces.0[2] = Interface {
        index: world.interface,
        mac: world.own_mac,
    };
    set::<{ size_of::<Interfaces>() }>(ebpf, "INTERFACES", 0, plain(&interfaces)?)?;
    for (id, node) in (0..).zip(&world.nodes) {
        let at = UNIT * NODES as u32 + id;
        set::<{ size_of::<Node>() }>(ebpf, "NODES", at, plain(node)?)?;
    }
    let vips: Vec<([u8; size_of::<VipKey4>()], [u8; size_of::<VipValue>()])> = world
        .vips4
        .iter()
        .map(|(key, value)| Ok((plain(key)?, plain(value)?)))
        .collect::<Result<_>>()?;
    insert(ebpf, "VIPS4", vips)?;
    let vips: Vec<([u8; size_of::<VipKey6>()], [u8; size_of::<VipValue>()])> = world
        .vips6
        .iter()
        .map(|(key, value)| Ok((plain(key)?, plain(value)?)))
        .collect::<Result<_>>()?;
    insert(ebpf, "VIPS6", vips)?;
    let vips = world.vips4.iter().map(|(key, value)| (*key, *value));
    for (index, slot) in (0..).zip(vip_slots::slots(vips)) {
        set::<{ size_of::<VipSlot4>() }>(ebpf, "VIP_SLOTS4", index, plain(&slot)?)?;
    }
    let vips = world.vips6.iter().map(|(key, value)| (*key, *value));
    for (index, slot) in (0..).zip(vip_slots::slots(vips)) {
        set::<{ size_of::<VipSlot6>() }>(ebpf, "VIP_SLOTS6", index, plain(&slot)?)?;
    }
    let mut words = vec![0_u32; PEER_MAC_BITS / 32];
    for mac in &world.peer_macs {
        words[mac.bit() as usize / 32] |= 1 << (mac.bit() % 32);
    }
    for (index, word) in (0..).zip(words).filter(|(_, word)| *word != 0) {
        set::<4>(ebpf, "PEER_MACS", index, word.to_ne_bytes())?;
    }
    Ok(())
}

/// A key or value as the bytes of its size.
fn plain<T: Abi, const N: usize>(value: &T) -> Result<[u8; N]> {
    let bytes = abi::bytes(value);
    ensure!(bytes.len() == N, "{} bytes instead of {N}", bytes.len());
    Ok(bytes.try_into()?)
}

fn set<const N: usize>(ebpf: &mut Ebpf, name: &str, index: u32, value: [u8; N]) -> Result<()>
where
    [u8; N]: Pod,
{
    let map = ebpf.map_mut(name).with_context(|| format!("no {name}"))?;
    Ok(Array::<_, [u8; N]>::try_from(map)?.set(index, value, 0)?)
}

fn insert<K: Pod, V: Pod>(ebpf: &mut Ebpf, name: &str, entries: Vec<(K, V)>) -> Result<()> {
    let mut map: HashMap<_, K, V> = ebpf
        .map_mut(name)
        .with_context(|| format!("no {name}"))?
        .try_into()?;
    for (key, value) in entries {
        map.insert(key, value, 0)?;
    }
    Ok(())
}
