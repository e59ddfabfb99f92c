//! NumPy files: `.npz` archives and `.npy` arrays, to and from tensors.
//!
//! Floats of 16 to 64 bits, integers of 8 to 64 bits and bool are kept as they are; everything else is refused.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use eec_ir::{DType, Tensor};
use eec_runtime::replace_file;
use npyz::half::f16;
use npyz::npz::{NpzArchive, NpzWriter, array_name_from_file_name, file_name_from_array_name};
use npyz::zip::CompressionMethod;
use npyz::zip::write::FileOptions;
use npyz::{WriteOptions, WriterBuilder};

/// Bytes of an array's header, but for a shape of very many dims.
const HEADER_ROOM: usize = 128;

/// Arrays by name.
pub type Arrays = BTreeMap<String, Tensor>;

/// Why a NumPy file could not be read or written: the file, the array, and what was found.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {}{reason}", array.as_ref().map(|a| format!("array `{a}`: ")).unwrap_or_default())]
pub struct NpzError {
    /// The file.
    pub file: String,
    /// The array inside it; `None` if the error concerns the file as a whole.
    pub array: Option<String>,
    /// Expected and found.
    pub reason: String,
}

impl NpzError {
    fn new(path: &Path, array: Option<&str>, reason: impl ToString) -> Self {
        NpzError { file: path.display().to_string(), array: array.map(str::to_string), reason: reason.to_string() }
    }
}

/// All arrays of a `.npz` file; one without any is refused.
pub fn read_npz(path: &Path) -> Result<Arrays, NpzError> {
    let whole = |reason: String| NpzError::new(path, None, reason);
    let file = File::open(path).map_err(|e| whole(format!("cannot be read: {e}")))?;
    let about = file.metadata().map_err(|e| whole(format!("cannot be read: {e}")))?;
    if !about.is_file() {
        return Err(whole("is not a file".into()));
    }
    if about.len() == 0 {
        return Err(whole("is empty".into()));
    }
    let mut archive =
        NpzArchive::new(BufReader::new(file)).map_err(|e| whole(format!("is not an .npz archive: {e}")))?;
    let zip = archive.zip_archive();
    let mut arrays = Arrays::new();
    for i in 0..zip.len() {
        let mut entry = zip.by_index(i).map_err(|e| whole(format!("entry {i} cannot be read: {e}")))?;
        let Some(name) = array_name_from_file_name(entry.name()).map(str::to_string) else {
            continue;
        };
        let tensor = read_array(&mut entry).map_err(|e| NpzError::new(path, Some(&name), e))?;
        if arrays.insert(name.clone(), tensor).is_some() {
            return Err(NpzError::new(path, Some(&name), "occurs twice"));
        }
    }
    if arrays.is_empty() { Err(whole("holds no arrays".into())) } else { Ok(arrays) }
}

/// The array of a `.npy` file.
pub fn read_npy(path: &Path) -> Result<Tensor, NpzError> {
    let file = File::open(path).map_err(|e| NpzError::new(path, None, format!("cannot be read: {e}")))?;
    read_array(&mut BufReader::new(file)).map_err(|e| NpzError::new(path, None, e))
}

/// Writes a `.npz` file with these arrays, uncompressed, in one step: a failure leaves what was there.
pub fn write_npz<'a>(path: &Path, arrays: impl IntoIterator<Item = (&'a str, &'a Tensor)>) -> Result<(), NpzError> {
    let mut current = None;
    let written = replace_file(path, |out| {
        let mut archive = NpzWriter::new(out);
        for (name, tensor) in arrays {
            current = Some(name);
            write_entry(&mut archive, name, tensor)?;
        }
        current = None;
        archive.zip_writer().finish()?;
        Ok(())
    });
    written.map_err(|e| NpzError::new(path, current, format!("cannot be written: {e}")))
}

fn write_entry<W: Write + io::Seek>(archive: &mut NpzWriter<W>, name: &str, tensor: &Tensor) -> io::Result<()> {
    let array = npy_bytes(tensor)?;
    let options = FileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .large_file(u32::try_from(array.len()).is_err());
    let zip = archive.zip_writer();
    zip.start_file(file_name_from_array_name(name), options)?;
    // In one piece: the archive's writer has work to do for each.
    zip.write_all(&array)
}

/// The array as a `.npy` file.
fn npy_bytes(tensor: &Tensor) -> io::Result<Vec<u8>> {
    fn put<T: npyz::AutoSerialize>(tensor: &Tensor, items: impl IntoIterator<Item = T>) -> io::Result<Vec<u8>> {
        let dims: Vec<u64> = tensor.dims().iter().map(|d| *d as u64).collect();
        let mut bytes = Vec::with_capacity(tensor.bytes().len() + HEADER_ROOM);
        let mut writer = WriteOptions::new().default_dtype().shape(&dims).writer(&mut bytes).begin_nd()?;
        writer.extend(items)?;
        writer.finish()?;
        Ok(bytes)
    }
    let ints = || tensor.to_i128s().unwrap_or_default().into_iter();
    match tensor.dtype() {
        DType::F32 => put(tensor, tensor.elements::<f32>().into_iter().flat_map(|v| v.into_owned())),
        DType::I64 => put(tensor, tensor.elements::<i64>().into_iter().flat_map(|v| v.into_owned())),
        DType::I32 => put(tensor, tensor.elements::<i32>().into_iter().flat_map(|v| v.into_owned())),
        DType::Bool => put(tensor, tensor.bytes().iter().map(|b| *b != 0)),
        DType::F64 => put(tensor, tensor.to_f64s()),
        DType::F16 => put(tensor, tensor.to_f64s().into_iter().map(f16::from_f64)),
        DType::I8 => put(tensor, ints().map(|x| x as i8)),
        DType::I16 => put(tensor, ints().map(|x| x as i16)),
        DType::U8 => put(tensor, ints().map(|x| x as u8)),
        DType::U16 => put(tensor, ints().map(|x| x as u16)),
        DType::U32 => put(tensor, ints().map(|x| x as u32)),
        DType::U64 => put(tensor, ints().map(|x| x as u64)),
        other => Err(io::Error::other(format!("NumPy has no {other}"))),
    }
}

/// The header of an array: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.
#[derive(Debug, PartialEq)]
struct Header {
    /// Byte order, kind and size of an element, such as `<f4`.
    descr: String,
    /// Whether the first dim varies fastest.
    fortran: bool,
    dims: Vec<usize>,
}

/// Real headers take 64 to a few hundred bytes.
const MAX_HEADER: usize = 1 << 16;

fn read_array(reader: &mut impl Read) -> Result<Tensor, String> {
    let header = read_header(reader)?;
    let size = header.descr.get(2..).and_then(|s| s.parse::<usize>().ok()).unwrap_or(0);
    let length = header.dims.iter().try_fold(size, |n, d| n.checked_mul(*d)).filter(|n| isize::try_from(*n).is_ok());
    let length = length.ok_or_else(|| format!("dims {:?} are too large", header.dims))?;
    let mut bytes = Vec::new();
    reader.take(length as u64).read_to_end(&mut bytes).map_err(|e| format!("cannot be read: {e}"))?;
    if bytes.len() != length {
        return Err(format!("{}{:?} needs {length} bytes, found {}", header.descr, header.dims, bytes.len()));
    }
    if header.descr.starts_with('>') {
        bytes.chunks_mut(size.max(1)).for_each(<[u8]>::reverse);
    }
    if header.fortran && header.dims.len() > 1 {
        bytes = row_major(&bytes, size, &header.dims);
    }
    convert(&header, bytes)
}

fn read_header(reader: &mut impl Read) -> Result<Header, String> {
    let mut start = [0; 8];
    reader.read_exact(&mut start).map_err(|_| "is not a NumPy array: it is shorter than a header".to_string())?;
    if start[..6] != *b"\x93NUMPY" {
        return Err("is not a NumPy array".into());
    }
    let mut length = [0; 4];
    let width = if start[6] == 1 { 2 } else { 4 };
    reader.read_exact(&mut length[..width]).map_err(|_| "the header is cut off".to_string())?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_HEADER {
        return Err(format!("the header claims {length} bytes"));
    }
    let mut text = vec![0; length];
    reader.read_exact(&mut text).map_err(|_| "the header is cut off".to_string())?;
    let text = String::from_utf8_lossy(&text);
    parse_header(&text).ok_or_else(|| format!("the header `{}` is not understood", text.trim()))
}

/// The fields of a header such as `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
fn parse_header(text: &str) -> Option<Header> {
    let field = |key: &str| Some(text.split_once(&format!("'{key}':"))?.1.trim_start());
    let descr = field("descr")?.strip_prefix('\'')?.split_once('\'')?.0.to_string();
    let fortran = field("fortran_order")?.starts_with("True");
    let shape = field("shape")?.strip_prefix('(')?.split_once(')')?.0;
    let dims = shape.split(',').map(str::trim).filter(|d| !d.is_empty()).map(|d| d.parse().ok());
    Some(Header { descr, fortran, dims: dims.collect::<Option<_>>()? })
}

/// `bytes` of elements of `size` bytes, whose first dim varies fastest, with the last dim fastest.
fn row_major(bytes: &[u8], size: usize, dims: &[usize]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = vec![0; dims.len()];
    for _ in 0..bytes.len() / size.max(1) {
        let at = index.iter().zip(dims).rev().fold(0, |acc, (i, d)| acc * d + i) * size;
        out.extend_from_slice(&bytes[at..at + size]);
        for (i, d) in index.iter_mut().zip(dims).rev() {
            *i += 1;
            if *i < *d {
                break;
            }
            *i = 0;
        }
    }
    out
}

fn convert(header: &Header, bytes: Vec<u8>) -> Result<Tensor, String> {
    let dims = &header.dims;
    let kind = header.descr.get(1..).unwrap_or_default();
    let dtype = match kind {
        "f2" => DType::F16,
        "f4" => DType::F32,
        "f8" => DType::F64,
        "i1" => DType::I8,
        "i2" => DType::I16,
        "i4" => DType::I32,
        "i8" => DType::I64,
        "u1" => DType::U8,
        "u2" => DType::U16,
        "u4" => DType::U32,
        "u8" => DType::U64,
        "b1" => DType::Bool,
        _ => {
            let found = &header.descr;
            return Err(format!(
                "element type `{found}` is not supported (floats of 16 to 64 bits, integers of 8 to 64 bits and bool are)"
            ));
        }
    };
    Tensor::from_bytes(dtype, dims, bytes).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use eec_ir::minifloat::Overflow;

    use super::*;

    fn npy(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        bytes
    }

    fn read(header: &str, data: &[u8]) -> Result<Tensor, String> {
        read_array(&mut npy(header, data).as_slice())
    }

    #[test]
    fn archives_round_trip() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("a.npz");
        let arrays = Arrays::from([
            ("x".to_string(), Tensor::new(&[2, 3], vec![1.0f32, -2.5, 3.0, f32::NAN, 5.0, 6.0])?),
            ("ids".to_string(), Tensor::vector(vec![1i64 << 40, -1])),
            ("mask/0".to_string(), Tensor::new(&[1, 2], vec![1u8, 0])?),
            ("one".to_string(), Tensor::scalar(7i32)),
            ("none".to_string(), Tensor::new::<f32>(&[0, 4], vec![])?),
            ("half".to_string(), Tensor::from_f64s(DType::F16, &[2], &[1.5, -0.1], Overflow::Special)?),
        ]);
        write_npz(&path, arrays.iter().map(|(n, t)| (n.as_str(), t)))?;
        assert_eq!(read_npz(&path)?, arrays);
        let (file, x) = (std::fs::read(&path)?, arrays["x"].bytes());
        assert!(file.windows(x.len()).any(|bytes| bytes == x), "elements are stored as they are");
        Ok(())
    }

    #[test]
    fn a_file_is_replaced_in_one_step() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("a.npz");
        std::fs::write(&path, "old")?;
        let mut old = File::open(&path)?;
        write_npz(&path, [("x", &Tensor::scalar(1i32))])?;
        assert_eq!(io::read_to_string(&mut old)?, "old", "what was there is not written over");
        assert_eq!(read_npz(&path)?.len(), 1);
        assert_eq!(std::fs::read_dir(folder.path())?.count(), 1);
        Ok(())
    }

    #[test]
    fn column_major_and_big_endian_arrays_are_turned() -> Result<(), Box<dyn std::error::Error>> {
        let columns = read("{'descr': '|i1', 'fortran_order': True, 'shape': (2, 3), }\n", &[1, 4, 2, 5, 3, 6])?;
        assert_eq!(columns, Tensor::from_integers(DType::I8, &[2, 3], &[1, 2, 3, 4, 5, 6])?);
        let big = read("{'descr': '>i4', 'fortran_order': False, 'shape': (2,), }\n", &[0, 0, 0, 1, 0, 0, 1, 0])?;
        assert_eq!(big, Tensor::vector(vec![1i32, 256]));
        let double = read("{'descr': '<f8', 'fortran_order': False, 'shape': (), }", &2.5f64.to_le_bytes())?;
        assert_eq!(double, Tensor::from_f64s(DType::F64, &[], &[2.5], Overflow::Special)?);
        Ok(())
    }

    #[test]
    fn broken_arrays_are_refused() {
        let refusal = |header: &str, data: &[u8]| read(header, data).err().unwrap_or_default();
        let short = refusal("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", &[0; 8]);
        assert_eq!(short, "<f4[3] needs 12 bytes, found 8");
        let huge = "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 99999999999), }";
        assert!(refusal(huge, &[]).contains("too large"));
        assert!(refusal("{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", &[0; 8]).contains("`<c8`"));
        assert!(
            refusal("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", &[0; 8])
                .contains("not understood")
        );
        assert!(refusal("{'descr': '|b1', 'fortran_order': False, 'shape': (1,), }", &[7]).contains("0 or 1"));
        assert!(read_array(&mut b"text".as_slice()).is_err_and(|e| e.contains("not a NumPy array")));
    }

    #[test]
    fn errors_name_file_and_array() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("not.npz");
        std::fs::write(&path, "hello")?;
        let error = read_npz(&path).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
        assert!(error.contains("is not an .npz archive"), "{error}");
        assert!(read_npy(&folder.path().join("absent.npy")).is_err_and(|e| e.reason.contains("cannot be read")));
        Ok(())
    }
}
