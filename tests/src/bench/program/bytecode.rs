//! An assembler for programs of a few instructions, and their loading.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::libc;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;

/// Says that the immediate is the descriptor of a map.
const BPF_PSEUDO_MAP_FD: u8 = 1;

/// The first members of `union bpf_attr` for the command; the kernel takes the others for 0.
#[repr(C)]
struct Attributes {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log: [u64; 2],
}

/// A register: `R0` is what a call returned and what the program returns, `R1` to `R5` are a call's arguments, `R6` to
/// `R9` outlive calls, `R10` is the end of the stack.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum Register {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R10 = 10,
}

/// How much is loaded or stored.
#[derive(Clone, Copy)]
pub(super) enum Width {
    Half = 0x08,
    Word = 0x00,
    Double = 0x18,
}

/// A comparison of unsigned numbers.
#[derive(Clone, Copy)]
pub(super) enum If {
    Equal = 0x10,
    Greater = 0x20,
    NotEqual = 0x50,
}

/// A program in the making.
#[derive(Default)]
pub(super) struct Assembler {
    instructions: Vec<u64>,
    /// Jumps to the exit, which is not yet there.
    exits: Vec<usize>,
}

impl Assembler {
    /// `to = value`.
    pub(super) fn set(self, to: Register, value: i32) -> Self {
        self.push(0xb7, to, Register::R0, 0, value)
    }

    /// `to = from`.
    pub(super) fn copy(self, to: Register, from: Register) -> Self {
        self.push(0xbf, to, from, 0, 0)
    }

    /// `to += value`.
    pub(super) fn add(self, to: Register, value: i32) -> Self {
        self.push(0x07, to, Register::R0, 0, value)
    }

    /// `to = *(from + offset)`.
    pub(super) fn load(self, width: Width, to: Register, from: Register, offset: i16) -> Self {
        self.push(0x61 | width as u8, to, from, offset, 0)
    }

    /// `*(to + offset) = from`.
    pub(super) fn store(self, width: Width, to: Register, offset: i16, from: Register) -> Self {
        self.push(0x63 | width as u8, to, from, offset, 0)
    }

    /// `*(to + offset) = value`.
    pub(super) fn store_value(self, width: Width, to: Register, offset: i16, value: i32) -> Self {
        self.push(0x62 | width as u8, to, Register::R0, offset, value)
    }

    /// `to` becomes the map.
    pub(super) fn map(self, to: Register, map: BorrowedFd<'_>) -> Self {
        let mut both = self.push(0x18, to, Register::R0, 0, map.as_raw_fd());
        if let Some(last) = both.instructions.last_mut() {
            *last |= u64::from(BPF_PSEUDO_MAP_FD) << 12;
        }
        both.push(0, Register::R0, Register::R0, 0, 0)
    }

    /// `r0 = helper(r1, …)`.
    pub(super) fn call(self, helper: i32) -> Self {
        self.push(0x85, Register::R0, Register::R0, 0, helper)
    }

    /// Goes to the exit if `one` is so to a value.
    pub(super) fn exit_if(mut self, one: Register, comparison: If, value: i32) -> Self {
        self.exits.push(self.instructions.len());
        self.push(0x05 | comparison as u8, one, Register::R0, 0, value)
    }

    /// Goes to the exit if `one` is so to `other`.
    pub(super) fn exit_if_register(
        mut self,
        one: Register,
        comparison: If,
        other: Register,
    ) -> Self {
        self.exits.push(self.instructions.len());
        self.push(0x0d | comparison as u8, one, other, 0, 0)
    }

    /// Ends the program, which returns what `r0` is.
    pub(super) fn end(self) -> Self {
        self.push(0x95, Register::R0, Register::R0, 0, 0)
    }

    /// Ends the program by an exit, where `r0` becomes `code`.
    pub(super) fn exit(mut self, code: i32) -> Self {
        let exit = self.instructions.len();
        for jump in std::mem::take(&mut self.exits) {
            self.instructions[jump] |= (((exit - jump - 1) as u16) as u64) << 16;
        }
        self.set(Register::R0, code).end()
    }

    /// `struct bpf_insn`: the code, two registers, an offset and an immediate.
    fn push(mut self, code: u8, to: Register, from: Register, offset: i16, value: i32) -> Self {
        let [code, to, from] = [code, to as u8, from as u8].map(u64::from);
        let (offset, value) = (offset as u16, value as u32);
        let registers = to << 8 | from << 12;
        self.instructions
            .push(code | registers | u64::from(offset) << 16 | u64::from(value) << 32);
        self
    }

    /// Loads the program.
    #[expect(
        unsafe_code,
        reason = "no safe library loads programs of single instructions"
    )]
    pub(super) fn load_program(&self) -> Result<OwnedFd> {
        let attributes = Attributes {
            kind: BPF_PROG_TYPE_SCHED_CLS,
            instruction_count: self.instructions.len() as u32,
            instructions: self.instructions.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            log: [0; 2],
        };
        // SAFETY: the pointers are of data that outlives the call, and the kernel reads no more than the sizes beside
        // them say.
        let loaded = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_PROG_LOAD,
                &raw const attributes,
                size_of::<Attributes>(),
            )
        };
        if loaded < 0 {
            return Err(io::Error::last_os_error()).context("load");
        }
        // SAFETY: the kernel has just made this descriptor, and nobody else knows of it.
        Ok(unsafe { OwnedFd::from_raw_fd(loaded as i32) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_laid_out_as_the_kernel_reads_them() {
        let program = Assembler::default()
            .load(Width::Half, Register::R5, Register::R2, 12)
            .exit_if(Register::R5, If::NotEqual, 8)
            .exit(-1);
        let expected = [
            0x0000_0000_000c_2569,
            0x0000_0008_0000_0555,
            0xffff_ffff_0000_00b7,
            0x95,
        ];
        assert_eq!(program.instructions, expected);
    }

    #[test]
    fn jumps_lead_to_the_exit() {
        let program = Assembler::default()
            .exit_if(Register::R0, If::Equal, 0)
            .set(Register::R0, 1)
            .end()
            .exit(-1);
        assert_eq!(program.instructions[0], 0x0000_0000_0002_0015);
    }
}
