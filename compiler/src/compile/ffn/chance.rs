//! Decisions by chance, as often at each gate as in a policy that they are compared with.

use eec_ir::{DType, Tensor};
use eec_passes::ffn_gates::{self, Granularity};

use crate::Error;
use crate::dataset::Dataset;
use crate::fit::random::Random;

/// Who decides: every token of every row, or every row, since models whose tokens decide together are
/// run on one row at a time.
#[derive(Clone, Copy)]
pub(crate) struct Chance {
    /// Rows of the data.
    pub(crate) rows: usize,
    /// Tokens per row.
    pub(crate) tokens: usize,
    pub(crate) granularity: Granularity,
}

impl Chance {
    /// Tokens that decide as one.
    fn together(self) -> usize {
        match self.granularity {
            Granularity::Row => 1,
            Granularity::All => self.tokens,
        }
    }

    /// Per gate, the share of its decisions that were to skip, from what the runs counted.
    pub(crate) fn shares(self, gate_rows: &[u64]) -> Vec<f64> {
        let decisions = (self.rows * self.tokens / self.together().max(1)).max(1) as f64;
        gate_rows.iter().map(|n| *n as f64 / decisions).collect()
    }

    /// The data with a mask per gate among its inputs, which skips at that share of its decisions.
    pub(crate) fn with_masks(self, data: &Dataset, blocks: &[usize], shares: &[f64]) -> Result<Dataset, Error> {
        let mut random = Random::new(0x5eed);
        let together = self.together();
        let mut out = data.clone();
        for (block, share) in blocks.iter().zip(shares) {
            let mut mask = Vec::with_capacity(self.rows * self.tokens);
            while mask.len() < self.rows * self.tokens {
                mask.resize(mask.len() + together, u8::from(random.uniform() < *share));
            }
            let mask = Tensor::from_bytes(DType::Bool, &[self.rows, self.tokens], mask).map_err(Error::request)?;
            out.inputs.push((ffn_gates::mask_input(*block), mask));
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(granularity: Granularity, share: f64) -> Vec<u8> {
        let data = Dataset { name: "d".into(), inputs: Vec::new(), labels: None, rows: 200 };
        let chance = Chance { rows: 200, tokens: 5, granularity };
        let masked = chance.with_masks(&data, &[3], &[share]).unwrap();
        assert_eq!((masked.inputs[0].0.as_str(), masked.inputs[0].1.dims()), ("skip.3", [200, 5].as_slice()));
        masked.inputs[0].1.bytes().to_vec()
    }

    #[test]
    fn masks_skip_as_often_as_was_counted() {
        let row = mask(Granularity::Row, 0.3);
        let chance = |granularity| Chance { rows: 200, tokens: 5, granularity };
        let count = row.iter().map(|b| u64::from(*b)).sum();
        assert!((chance(Granularity::Row).shares(&[count])[0] - 0.3).abs() < 0.05);
        assert!(row.chunks(5).any(|r| r.contains(&0) && r.contains(&1)));

        let all = mask(Granularity::All, 0.3);
        assert!(all.chunks(5).all(|r| r.iter().all(|b| *b == r[0])), "tokens of a row decide together");
        let count = all.chunks(5).map(|r| u64::from(r[0])).sum();
        assert!((chance(Granularity::All).shares(&[count])[0] - 0.3).abs() < 0.1);
        assert!(mask(Granularity::All, 0.0).iter().all(|b| *b == 0));
    }
}
