//! Memory that a keeper and a server share: output on its way, written by the one and lent by the other.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags};

/// Memory without a name whose size nobody can change. Pages that were never written cost nothing.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    fd: OwnedFd,
    length: usize,
    /// Mapped for writing, where this process made it.
    writable: Option<Arc<Mapping>>,
}

impl SharedMemory {
    /// Makes it, all zeros, and maps it for writing.
    ///
    /// # Errors
    /// What memfd_create(2), ftruncate(2), fcntl(2) or mmap(2) says.
    pub(crate) fn new(length: usize) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create(c"remora-output", flags)?;
        rustix::fs::ftruncate(&fd, length as u64)?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let mapping = Mapping::new(&fd, length, libc::PROT_READ | libc::PROT_WRITE)?;
        Ok(SharedMemory { fd, length, writable: Some(Arc::new(mapping)) })
    }

    /// Cuts it in equal pieces to be written. None where this process didn't make it, or pieces of the last time are left.
    pub(crate) fn pieces<const N: usize>(&mut self) -> Option<[Piece; N]> {
        // With the only handle in hand, no piece is there and none can be made.
        Arc::get_mut(self.writable.as_mut()?)?;
        let mapping = self.writable.as_ref()?;
        let length = self.length / N.max(1);
        Some(std::array::from_fn(|index| Piece {
            mapping: Arc::clone(mapping),
            from: index * length,
            length,
        }))
    }

    /// Gives back the pages that were written.
    ///
    /// # Errors
    /// What fallocate(2) says.
    pub(crate) fn clear(&self) -> io::Result<()> {
        let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.fd, flags, 0, self.length as u64).map_err(io::Error::from)
    }

    /// Takes over what another process made.
    ///
    /// # Errors
    /// Where it isn't memory of this length whose size is fixed: touching it could kill this process (SIGBUS, mmap(2)).
    pub(crate) fn received(fd: OwnedFd, length: usize) -> io::Result<Self> {
        let wanted = SealFlags::SHRINK | SealFlags::GROW;
        let is_sealed = rustix::fs::fcntl_get_seals(&fd)?.contains(wanted);
        let size = rustix::fs::fstat(&fd)?.st_size;
        if !is_sealed || u64::try_from(size) != Ok(length as u64) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not the memory that was announced"));
        }
        Ok(SharedMemory { fd, length, writable: None })
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Maps all of it for reading.
    ///
    /// # Errors
    /// What mmap(2) says.
    pub(crate) fn view(&self) -> io::Result<View> {
        Ok(View(Arc::new(Mapping::new(&self.fd, self.length, libc::PROT_READ)?)))
    }
}

#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: a mapping belongs to no thread. Pieces of it don't overlap, and views are only read.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(fd: &OwnedFd, length: usize, protection: libc::c_int) -> io::Result<Self> {
        // SAFETY: a new mapping where the kernel finds room for it: nothing that exists is touched.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, fd.as_raw_fd(), 0)
        };
        match NonNull::new(start.cast()).filter(|_| start != libc::MAP_FAILED) {
            Some(start) => Ok(Mapping { start, length }),
            None => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that `new` made; pieces and views hold it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// Shared memory, to be read.
#[derive(Clone, Debug)]
pub(crate) struct View(Arc<Mapping>);

impl View {
    /// Bytes that the other process has said to be there and doesn't touch until it is told that they aren't needed any more.
    /// Empty where they would lie outside.
    pub(crate) fn bytes(&self, from: usize, length: usize) -> &[u8] {
        match from.checked_add(length) {
            // SAFETY: inside the mapping, whose size is sealed, and initialised as all of a memfd is. The keeper writes only what
            // lies behind what it has announced, and this is asked for before it is released (`Kept::output`): nobody writes there
            // while the slice lives. A keeper that did would change bytes, which are bytes whatever they are.
            Some(end) if end <= self.0.length => unsafe {
                std::slice::from_raw_parts(self.0.start.as_ptr().add(from), length)
            },
            _ => &[],
        }
    }
}

/// A part of shared memory, which this value alone writes.
#[derive(Debug)]
pub(crate) struct Piece {
    mapping: Arc<Mapping>,
    from: usize,
    length: usize,
}

impl std::ops::Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: inside the mapping (`SharedMemory::pieces` lays them out), whose size is sealed; no other value of this process writes there,
        // and the other process has it mapped for reading.
        unsafe { std::slice::from_raw_parts(self.mapping.start.as_ptr().add(self.from), self.length) }
    }
}

impl std::ops::DerefMut for Piece {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; pieces that live at the same time don't overlap, and this one is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.mapping.start.as_ptr().add(self.from), self.length) }
    }
}

#[cfg(test)]
mod tests {
    use super::SharedMemory;

    #[test]
    fn what_is_written_is_seen_and_pieces_are_apart() {
        let mut memory = SharedMemory::new(3 * 4096).unwrap();
        let [mut first, mut second, third] = memory.pieces::<3>().unwrap();
        let view = memory.view().unwrap();
        first[4095] = 1;
        second[0] = 2;
        assert_eq!(view.bytes(4095, 2), [1, 2]);
        assert_eq!((first.len(), second[1]), (4096, 0));
        assert_eq!(view.bytes(3 * 4096, 1), b"");
        assert_eq!(view.bytes(usize::MAX, 2), b"");
        drop((first, second));
        assert!(memory.pieces::<3>().is_none());
        drop(third);
        assert!(memory.pieces::<3>().is_some());
        memory.clear().unwrap();
        assert_eq!(view.bytes(4095, 2), [0, 0]);
    }

    #[test]
    fn memory_whose_size_may_change_is_not_taken() {
        let memory = SharedMemory::new(4096).unwrap();
        let copy = || memory.as_fd().try_clone_to_owned().unwrap();
        assert!(rustix::fs::ftruncate(copy(), 1).is_err());
        assert!(SharedMemory::received(copy(), 4096).is_ok());
        assert!(SharedMemory::received(copy(), 8192).is_err());
        let open = rustix::fs::memfd_create(c"open", rustix::fs::MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::fs::ftruncate(&open, 4096).unwrap();
        assert!(SharedMemory::received(open, 4096).is_err());
    }
}
