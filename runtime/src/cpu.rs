//! The CPU features that generated code may use beyond those of every CPU of its architecture.

/// A feature as Rust's `target-feature` names it, and as cranelift does.
pub(crate) type Feature = (&'static str, &'static str);

/// Defines the features of an architecture, and which of them this CPU has if it is one of that architecture.
macro_rules! features {
    ($table:ident, $arch:literal, $detect:ident: $($name:tt $flag:literal),+ $(,)?) => {
        const $table: &[Feature] = &[$(($name, $flag)),+];

        /// The features that this CPU has, as bits by their position in the table.
        #[cfg(target_arch = $arch)]
        pub(crate) fn detected() -> u64 {
            let found = [$(std::arch::$detect!($name)),+];
            found.into_iter().enumerate().map(|(bit, found)| u64::from(found) << bit).sum()
        }
    };
}

features! {
    X86_64, "x86_64", is_x86_feature_detected:
    "sse3" "has_sse3",
    "ssse3" "has_ssse3",
    "sse4.1" "has_sse41",
    "sse4.2" "has_sse42",
    "popcnt" "has_popcnt",
    "lzcnt" "has_lzcnt",
    "bmi1" "has_bmi1",
    "bmi2" "has_bmi2",
    "avx" "has_avx",
    "avx2" "has_avx2",
    "fma" "has_fma",
    "avx512f" "has_avx512f",
    "avx512dq" "has_avx512dq",
    "avx512vl" "has_avx512vl",
    "avx512bitalg" "has_avx512bitalg",
    "avx512vbmi" "has_avx512vbmi",
}

features! {
    AARCH64, "aarch64", is_aarch64_feature_detected:
    "lse" "has_lse",
    "fp16" "has_fp16",
}

/// No other architecture has features that generated code uses.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) fn detected() -> u64 {
    0
}

/// The features of an architecture, as Rust names it.
pub(crate) fn table(arch: &str) -> &'static [Feature] {
    match arch {
        "x86_64" => X86_64,
        "aarch64" => AARCH64,
        _ => &[],
    }
}

/// The names of the features that are set in `bits`; of bits that stand for none, their number.
pub(crate) fn names(arch: &str, bits: u64) -> Vec<String> {
    let name = |bit: usize| table(arch).get(bit).map_or_else(|| format!("feature {bit}"), |f| f.0.to_string());
    (0..64).filter(|bit| bits >> bit & 1 == 1).map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_have_names_by_their_bits() {
        assert_eq!(names("x86_64", 0b101 | 1 << 10), ["sse3", "sse4.1", "fma"]);
        assert_eq!(names("aarch64", 1 << 63), ["feature 63"]);
        assert!(names("riscv64", 0).is_empty());
        let known = table(std::env::consts::ARCH).len();
        assert_eq!(detected() >> known, 0);
    }
}
