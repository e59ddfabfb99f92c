//! The arena on a device: one buffer, or several where a binding cannot show all of it. A place in it is a number of
//! words from the beginning of the first.

use super::device::Gpu;
use crate::error::Error;

const ARENA: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_DST).union(wgpu::BufferUsages::COPY_SRC);

const NAME: &str = "the temporary buffers";

/// The buffers, of which all but the last hold equally many words.
pub(super) struct Segments {
    buffers: Vec<wgpu::Buffer>,
    /// Words of a buffer at most.
    most: usize,
}

impl Segments {
    /// Without room for anything.
    pub(super) fn new(gpu: &Gpu) -> Result<Segments, Error> {
        let limits = &gpu.adapter().limits;
        // Shaders count words in 32 bits.
        let most = (limits.binding_bytes.min(limits.buffer_bytes) / 4).clamp(1, i32::MAX as u64) as usize;
        Ok(Segments { buffers: vec![gpu.buffer(NAME, 0, ARENA)?], most })
    }

    /// Words of every buffer but the last.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// How many buffers so many words take.
    pub(super) fn of(&self, words: usize) -> usize {
        words.div_ceil(self.most).max(1)
    }

    /// The buffers.
    pub(super) fn buffers(&self) -> &[wgpu::Buffer] {
        &self.buffers
    }

    /// Words that there is room for.
    pub(super) fn words(&self) -> usize {
        self.buffers.iter().map(|buffer| buffer.size() as usize / 4).sum()
    }

    /// Takes room for so many words, and loses what it held; should that fail, there is no room for anything.
    pub(super) fn resize(&mut self, gpu: &Gpu, words: usize) -> Result<(), Error> {
        // What is held goes before more is taken.
        let held = std::mem::replace(&mut self.buffers, vec![gpu.buffer(NAME, 0, ARENA)?]);
        held.iter().for_each(wgpu::Buffer::destroy);
        let sizes = (0..self.of(words)).map(|i| (words - i * self.most).min(self.most));
        self.buffers = sizes.map(|size| gpu.buffer(NAME, size, ARENA)).collect::<Result<_, Error>>()?;
        Ok(())
    }

    /// Where these words are: buffers, with first words in them and numbers of words.
    pub(super) fn parts(&self, first: usize, words: usize) -> impl Iterator<Item = (&wgpu::Buffer, usize, usize)> {
        let (most, end) = (self.most, first + words);
        self.buffers.iter().enumerate().filter_map(move |(i, buffer)| {
            let (from, to) = (first.max(i * most), end.min((i + 1) * most));
            (from < to).then(|| (buffer, from - i * most, to - from))
        })
    }
}
