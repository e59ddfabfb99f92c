//! Attention, fused: a workgroup takes a tile of queries through all keys, tile by tile, with an online softmax
//! (Milakov and Gimelshein 2018; Dao et al. 2022), so that scores exist only for one tile.
//!
//! Per tile of keys: keys and values are read into the workgroup's memory, a lane computes one score, and the lanes
//! of a query scale down what they have and add the tile's weighted values, each for some of the columns.

use eec_ir::Dim;
use eec_ir::program::{Attention, View};

use super::Body;
use super::dims::groups;
use super::helpers::Helper;
use super::place::Place;
use super::text::{Reason, Writer};

/// Words of a workgroup's memory, which every adapter has.
const MEMORY: i64 = 16384 / 4;

/// Queries, and keys, of a tile.
fn side(width: i64) -> Option<i64> {
    // Queries, keys and values with a column between banks, scores and probabilities.
    [16, 8, 4].into_iter().find(|n| 3 * n * (width + 1) + 2 * n * n <= MEMORY)
}

/// Writes an attention.
pub(super) fn write(w: &mut Writer, form: &Attention) -> Result<Body, Reason> {
    let constant = |dim: &Dim| dim.as_const().ok_or_else(|| format!("the width of its heads, `{dim}`, is not known"));
    let (d, width) = (constant(&form.d)?, constant(&form.width)?);
    let side = side(d.max(width)).ok_or_else(|| format!("its heads are {} wide, which is too much", d.max(width)))?;
    let tile = Tile { side, d, width };
    let places = Places::new(w, form)?;
    begin(w, form, tile)?;
    queries(w, form, tile, &places)?;
    w.line(format!("for (var first_key = 0; first_key < keys; first_key += {side}) {{"));
    keys_and_values(w, form, tile, &places)?;
    w.line("workgroupBarrier();");
    score(w, form, tile, &places)?;
    w.line("workgroupBarrier();");
    absorb(w, form, tile);
    w.line("workgroupBarrier();\n}");
    store(w, form, tile, &places)?;
    w.line("}");
    let tiles = groups(&form.m, side)?;
    Ok(Body { lanes: (side * side) as u32, groups: &Dim::product(&form.batch) * &tiles })
}

#[derive(Clone, Copy)]
struct Tile {
    side: i64,
    d: i64,
    width: i64,
}

impl Tile {
    /// Columns of the result that a lane has.
    fn columns(self) -> i64 {
        (self.width + self.side - 1) / self.side
    }

    fn lanes(self) -> i64 {
        self.side * self.side
    }
}

struct Places {
    q: Place,
    k: Place,
    v: Place,
    mask: Option<Place>,
    c: Place,
}

impl Places {
    fn new(w: &mut Writer, form: &Attention) -> Result<Places, Reason> {
        let mask = form.mask.as_ref().map(|v| w.place(v.buffer)).transpose()?;
        let [q, k, v, c] = [&form.q, &form.k, &form.v, &form.c].map(|view| w.place(view.buffer));
        Ok(Places { q: q?, k: k?, v: v?, mask, c: c? })
    }
}

/// `name + row · stride + column · stride`, by the last two strides of a view.
fn at(w: &mut Writer, view: &View, name: &str, row: &str, column: &str) -> Result<String, Reason> {
    let axes = view.strides[view.strides.len() - 2..].iter().zip([row, column]);
    let inside = w.linear(&Dim::default(), axes)?;
    Ok(format!("{name} + {inside}"))
}

/// The workgroup's memory, the tile's place and what the lane holds.
fn begin(w: &mut Writer, form: &Attention, tile: Tile) -> Result<(), Reason> {
    let Tile { side, d, width } = tile;
    for (name, words) in [
        ("queries", side * (d + 1)),
        ("keys_of", side * (d + 1)),
        ("values", side * (width + 1)),
        ("scores", side * side),
        ("shares", side * side),
    ] {
        w.global(format!("var<workgroup> {name}: array<f32, {words}>;"));
    }
    let (rows, keys) = (w.dim(&form.m)?, w.dim(&form.n)?);
    let matrices = w.dim(&Dim::product(&form.batch))?;
    w.line(format!("let rows = {rows};\nlet keys = {keys};"));
    w.line(format!("let tiles_down = (rows + {}) / {side};", side - 1));
    w.line(format!("let query = lane / {side};\nlet other = lane % {side};"));
    w.line(format!("for (var tile = group; tile < tiles_down * {matrices}; tile += groups) {{"));
    w.line("let matrix = tile / tiles_down;");
    w.line(format!("let first_row = (tile - matrix * tiles_down) * {side};"));
    let batch = w.split("matrix", &form.batch, "m")?;
    let views = [("q_first", &form.q), ("k_first", &form.k), ("v_first", &form.v), ("c_first", &form.c)];
    for (name, view) in views.into_iter().chain(form.mask.iter().map(|view| ("mask_first", view))) {
        let first = w.linear(&view.offset, view.strides.iter().zip(batch.iter().map(String::as_str)))?;
        w.line(format!("let {name} = {first};"));
    }
    let lowest = w.float(f32::NEG_INFINITY);
    w.line(format!("var top = {lowest};\nvar total = 0.0;"));
    for c in 0..tile.columns() {
        w.line(format!("var sum{c} = 0.0;"));
        if form.instead_of_nan.is_some() {
            w.line(format!("var plain{c} = 0.0;"));
        }
    }
    Ok(())
}

fn queries(w: &mut Writer, form: &Attention, tile: Tile, places: &Places) -> Result<(), Reason> {
    let Tile { side, d, .. } = tile;
    w.line(format!("for (var i = lane; i < {}; i += {}) {{", side * d, tile.lanes()));
    let by = d.max(1);
    w.line(format!("let row = i / {by};\nlet column = i % {by};\nvar value = 0.0;"));
    let position = at(w, &form.q, "q_first", "(first_row + row)", "column")?;
    w.line(format!("if first_row + row < rows {{ value = {}; }}", places.q.load(&position)));
    w.line(format!("queries[row * {} + column] = value;\n}}", d + 1));
    Ok(())
}

fn keys_and_values(w: &mut Writer, form: &Attention, tile: Tile, places: &Places) -> Result<(), Reason> {
    let Tile { side, d, width } = tile;
    let key = at(w, &form.k, "k_first", "column", "(first_key + row)")?;
    let value = at(w, &form.v, "v_first", "(first_key + row)", "column")?;
    for (name, columns, element) in [("keys_of", d, places.k.load(&key)), ("values", width, places.v.load(&value))] {
        w.line(format!("for (var i = lane; i < {}; i += {}) {{", side * columns, tile.lanes()));
        let by = columns.max(1);
        w.line(format!("let row = i / {by};\nlet column = i % {by};\nvar value = 0.0;"));
        w.line(format!("if first_key + row < keys {{ value = {element}; }}"));
        w.line(format!("{name}[row * {} + column] = value;\n}}", columns + 1));
    }
    Ok(())
}

fn score(w: &mut Writer, form: &Attention, tile: Tile, places: &Places) -> Result<(), Reason> {
    let pitch = tile.d + 1;
    let (lowest, scale) = (w.float(f32::NEG_INFINITY), w.float(form.scale));
    w.line(format!("var score = {lowest};"));
    w.line("if first_key + other < keys && first_row + query < rows {\nvar dot = 0.0;");
    w.line(format!("for (var i = 0; i < {}; i += 1) {{", tile.d));
    w.line(format!("dot = fma(queries[query * {pitch} + i], keys_of[other * {pitch} + i], dot);\n}}"));
    w.line(format!("score = dot * {scale};"));
    if let (Some(view), Some(mask)) = (&form.mask, &places.mask) {
        let position = at(w, view, "mask_first", "(first_row + query)", "(first_key + other)")?;
        w.line(format!("score += {};", mask.load(&position)));
    }
    w.line("}\nscores[lane] = score;");
    w.helper(Helper::IsNan);
    Ok(())
}

/// Takes the tile's scores into the running maximum, sum and weighted values.
fn absorb(w: &mut Writer, form: &Attention, tile: Tile) {
    let Tile { side, width, .. } = tile;
    let lowest = w.float(f32::NEG_INFINITY);
    w.line("var higher = top;");
    w.line(format!("for (var i = 0; i < {side}; i += 1) {{ higher = max(higher, scores[query * {side} + i]); }}"));
    // Where all scores so far are -inf there is nothing to scale, and their difference would be NaN.
    w.line(format!("let shift = select(higher, 0.0, higher == {lowest});"));
    w.line("let shrink = exp(top - shift);");
    w.line("shares[lane] = exp(scores[lane] - shift);\ntop = higher;\nworkgroupBarrier();");
    w.line("var sum = 0.0;");
    w.line(format!("for (var i = 0; i < {side}; i += 1) {{ sum += shares[query * {side} + i]; }}"));
    w.line("total = total * shrink + sum;");
    let columns: Vec<i64> = (0..tile.columns()).collect();
    columns.iter().for_each(|c| w.line(format!("sum{c} *= shrink;")));
    w.line(format!("for (var i = 0; i < {side}; i += 1) {{\nlet share = shares[query * {side} + i];"));
    for c in columns {
        // Columns beyond the width read another key's value, and are not stored.
        let column = format!("min(other + {}, {})", c * side, width - 1);
        w.line(format!("let value{c} = values[i * {} + {column}];", width + 1));
        w.line(format!("sum{c} = fma(share, value{c}, sum{c});"));
        if form.instead_of_nan.is_some() {
            w.line(format!("plain{c} += value{c};"));
        }
    }
    w.line("}");
}

fn store(w: &mut Writer, form: &Attention, tile: Tile, places: &Places) -> Result<(), Reason> {
    let nan = w.float(f32::NAN);
    w.line("let bad = is_nan(total) || total == 0.0;");
    for c in 0..tile.columns() {
        let column = format!("(other + {})", c * tile.side);
        let position = at(w, &form.c, "c_first", "(first_row + query)", &column)?;
        let instead = match form.instead_of_nan {
            Some(x) => format!("plain{c} * {}", w.float(x)),
            None => format!("select({nan}, 0.0, keys == 0)"),
        };
        w.line(format!("if first_row + query < rows && {column} < {} {{", tile.width));
        w.line(format!("let value = select(sum{c} / total, {instead}, bad);"));
        w.line(places.c.store(&position, "value"));
        w.line("}");
    }
    // The next tile's queries are read into what other lanes may still read.
    w.line("workgroupBarrier();");
    Ok(())
}
