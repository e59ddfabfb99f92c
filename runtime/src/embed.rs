//! Artifacts that are part of a program.

/// The artifact of a file, embedded in the program at the alignment that
/// [`Artifact::embedded`](crate::Artifact::embedded) asks for: a `&'static [u8]`.
///
/// The path is as for `include_bytes!`.
///
/// ```
/// let bytes: &'static [u8] = eec_runtime::include_artifact!(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
/// assert_eq!(bytes.as_ptr().addr() % 64, 0);
/// assert!(eec_runtime::Artifact::embedded(bytes).unwrap_err().to_string().contains("is not an .eec file"));
/// ```
#[macro_export]
macro_rules! include_artifact {
    ($path:expr $(,)?) => {{
        #[repr(C, align(64))]
        struct Aligned<Bytes: ?Sized>(Bytes);
        static ARTIFACT: &Aligned<[u8]> = &Aligned(*include_bytes!($path));
        &ARTIFACT.0
    }};
}
