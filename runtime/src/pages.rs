//! Memory for large blocks, in huge pages where the system has them: what is read from front to back in
//! pages of 4 KiB costs a walk through the page tables for each of them.

use memmap2::MmapMut;

/// Zeroed memory that starts at a page; it may be empty.
#[derive(Default)]
pub(crate) struct Pages(Option<MmapMut>);

impl Pages {
    /// `len` zero bytes; `None` if the system has no such memory.
    pub(crate) fn new(len: usize) -> Option<Pages> {
        if len == 0 {
            return Some(Pages(None));
        }
        let map = MmapMut::map_anon(len).ok()?;
        // A system without huge pages refuses, and then small ones serve.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Some(Pages(Some(map)))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |map| map.len())
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.as_mut().map_or(std::ptr::dangling_mut(), |map| map.as_mut_ptr())
    }

    /// The memory as floats.
    pub(crate) fn floats(&self) -> &[f32] {
        let bytes = self.0.as_deref().unwrap_or_default();
        // SAFETY: a page starts at a multiple of 4, and any bits are a float.
        unsafe { bytes.align_to().1 }
    }

    pub(crate) fn floats_mut(&mut self) -> &mut [f32] {
        let bytes = self.0.as_deref_mut().unwrap_or_default();
        // SAFETY: as for `floats`.
        unsafe { bytes.align_to_mut().1 }
    }
}
