//! The pool of constants: equal tensors are stored once, so tied weights are one constant.

use std::collections::HashMap;
use std::fmt;

use crate::entity::ConstId;
use crate::tensor::Tensor;

/// A content hash: dtype, dims and bytes. Its `Display` (`#` and hex digits) is the text syntax.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct ContentHash(pub [u8; 12]);

impl ContentHash {
    /// The hash of a tensor.
    pub fn of(tensor: &Tensor) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(tensor.ty().to_string().as_bytes());
        hasher.update(tensor.bytes());
        let mut out = [0; 12];
        out.copy_from_slice(&hasher.finalize().as_bytes()[..12]);
        ContentHash(out)
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("#")?;
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Constants by content.
#[derive(Clone, Debug, Default)]
pub struct ConstPool {
    tensors: Vec<(Tensor, ContentHash)>,
    by_hash: HashMap<ContentHash, ConstId>,
}

impl ConstPool {
    /// The id of `tensor`, which is added unless an equal one is there.
    pub fn intern(&mut self, tensor: Tensor) -> ConstId {
        let hash = ContentHash::of(&tensor);
        *self.by_hash.entry(hash).or_insert_with(|| {
            self.tensors.push((tensor, hash));
            ConstId::new(self.tensors.len() - 1)
        })
    }

    /// A constant's tensor.
    pub fn tensor(&self, id: ConstId) -> &Tensor {
        &self.tensors[id.index()].0
    }

    /// A constant's hash.
    pub fn hash(&self, id: ConstId) -> ContentHash {
        self.tensors[id.index()].1
    }

    /// The constant with this hash.
    pub fn find(&self, hash: ContentHash) -> Option<ConstId> {
        self.by_hash.get(&hash).copied()
    }

    /// All constants in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = (ConstId, &Tensor)> {
        self.tensors.iter().enumerate().map(|(i, (t, _))| (ConstId::new(i), t))
    }
}
