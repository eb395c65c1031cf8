//! Loads the kernel object onto the pinned maps.

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData},
    programs::{SkLookup, Xdp},
};

use super::{
    error::KernelError,
    packet_log,
    pins::{LAYOUTS, Pins},
};

/// The kernel object, aligned as an ELF file must be; empty where the build had none.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/forebay.bpf.o"));

/// The kernel object this binary carries, if it was built with one.
pub fn object() -> Option<&'static [u8]> {
    Some(OBJECT).filter(|object| !object.is_empty())
}

/// The object in the kernel, both programs verified, on maps that were pinned before or are now.
pub(super) struct Loaded(pub(super) Ebpf);

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Loaded")
    }
}

impl Loaded {
    /// Loads the object and its programs.
    ///
    /// # Errors
    ///
    /// [`KernelError::NoObject`], [`KernelError::Privilege`], [`KernelError::Load`].
    pub(super) fn load(pins: &Pins) -> Result<Self, KernelError> {
        let object = object().ok_or(KernelError::NoObject)?;
        // Where pinned maps are there, aya makes none: without the privilege it finds out nothing of
        // the kernel, and says of the object what would be wrong with it on a very old one.
        Array::<MapData, u32>::create(1, 0)
            .map_err(|error| KernelError::load("the kernel object", error))?;
        let mut loader = EbpfLoader::new();
        // aya opens a pin that is there and makes the others: so a new program starts on the maps
        // that the running one reads, and an install that was cut short is completed.
        for layout in &LAYOUTS {
            loader.map_pin_path(layout.name, pins.map(layout.name));
        }
        let mut loaded = Self(
            loader
                .load(object)
                .map_err(|error| KernelError::load("the kernel object", error))?,
        );
        packet_log::start(&mut loaded.0);
        loaded
            .steer()?
            .load()
            .map_err(|error| KernelError::load("the XDP program steer", error))?;
        loaded
            .pass()?
            .load()
            .map_err(|error| KernelError::load("the XDP program pass", error))?;
        loaded
            .assign()?
            .load()
            .map_err(|error| KernelError::load("the sk_lookup program assign", error))?;
        Ok(loaded)
    }

    /// The XDP program.
    pub(super) fn steer(&mut self) -> Result<&mut Xdp, KernelError> {
        let program = self.0.program_mut("steer").ok_or(KernelError::NoObject)?;
        program
            .try_into()
            .map_err(|error| KernelError::load("the XDP program steer", error))
    }

    /// The XDP program that lets every frame pass: it holds an interface until `steer` goes live.
    pub(super) fn pass(&mut self) -> Result<&mut Xdp, KernelError> {
        let program = self.0.program_mut("pass").ok_or(KernelError::NoObject)?;
        program
            .try_into()
            .map_err(|error| KernelError::load("the XDP program pass", error))
    }

    /// The sk_lookup program.
    pub(super) fn assign(&mut self) -> Result<&mut SkLookup, KernelError> {
        let program = self.0.program_mut("assign").ok_or(KernelError::NoObject)?;
        program
            .try_into()
            .map_err(|error| KernelError::load("the sk_lookup program assign", error))
    }
}
