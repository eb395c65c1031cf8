//! The kernel programs on maps of a fixture world, without pins or links: for test runs of single
//! frames.

use std::{collections::HashMap as StdHashMap, time::Duration};

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf, EbpfLoader, Pod, TestRun, TestRunOptions,
    maps::{Array, ArrayOfMaps, HashMap, MapData, PerCpuArray},
    programs::{SkLookup, Xdp},
};
use ingress_ebpf::{
    abi::{self, Abi, Bucket, MacKey, Meta, Node, SelfNode, TABLE_LEN, VipKey, VipValue},
    encap::OVERHEAD,
    fixtures::{Action, World},
    verdict::Reason,
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
    /// Loads the programs and fills the maps. With `undo` each run puts the frame back as it was.
    ///
    /// # Errors
    /// The binary carries no kernel object, or the process lacks the privilege.
    pub fn load(world: &World, undo: bool) -> Result<Self> {
        let object = ingress_agent::kernel::object().context("built without the kernel object")?;
        let undo = u32::from(undo);
        let mut ebpf = EbpfLoader::new()
            .override_global("UNDO", &undo, true)
            .load(object)?;
        for name in ["steer", "pass"] {
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

    /// Runs a program `repeat` times on a frame of at least 14 bytes.
    ///
    /// # Errors
    /// The kernel refuses, or the program answers something else than pass, drop or transmit.
    pub fn run(&self, program: &str, frame: &[u8], repeat: u32) -> Result<Run> {
        let xdp: &Xdp = self
            .ebpf
            .program(program)
            .context("no such program")?
            .try_into()?;
        let mut output = vec![0; frame.len() + OVERHEAD];
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

fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    Ok(ebpf
        .program_mut(name)
        .with_context(|| format!("no program {name}"))?
        .try_into()?)
}

fn fill(ebpf: &mut Ebpf, world: &World) -> Result<()> {
    let mut fresh = Array::<MapData, [u8; size_of::<Bucket>()]>::create(TABLE_LEN as u32, 0)?;
    for (index, bucket) in (0..).zip(&world.table) {
        fresh.set(index, plain(bucket)?, 0)?;
    }
    let tables = ebpf.map_mut("TABLES").context("no TABLES")?;
    ArrayOfMaps::<_, Array<MapData, [u8; size_of::<Bucket>()]>>::try_from(tables)?
        .set(0, &fresh, 0)?;

    set::<{ size_of::<Meta>() }>(ebpf, "META", 0, plain(&world.meta)?)?;
    set::<{ size_of::<SelfNode>() }>(ebpf, "SELF", 0, plain(&world.this_node)?)?;
    for (id, node) in (0..).zip(&world.nodes) {
        set::<{ size_of::<Node>() }>(ebpf, "NODES", id, plain(node)?)?;
    }
    let vips: Vec<([u8; size_of::<VipKey>()], [u8; size_of::<VipValue>()])> = world
        .vips
        .iter()
        .map(|(key, value)| Ok((plain(key)?, plain(value)?)))
        .collect::<Result<_>>()?;
    insert(ebpf, "VIPS", vips)?;
    insert(ebpf, "PEERS", owned(&world.peers))?;
    let macs: Vec<([u8; size_of::<MacKey>()], u32)> = world
        .peer_macs
        .iter()
        .map(|(key, id)| Ok((plain(key)?, *id)))
        .collect::<Result<_>>()?;
    insert(ebpf, "PEER_MACS", macs)
}

fn owned<K: Copy, V: Copy>(map: &StdHashMap<K, V>) -> Vec<(K, V)> {
    map.iter().map(|(key, value)| (*key, *value)).collect()
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
