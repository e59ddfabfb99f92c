//! Products in tiles: a workgroup computes a tile of the result from strips of both operands, which it reads into its
//! own memory, and every lane a block of that tile in registers. Every sum is one chain in the order of the depth.

use eec_ir::Dim;

use super::Body;
use super::text::{Reason, Writer};

/// What is multiplied: matrices of `rows × depth` and `depth × columns`, one pair after the other.
pub(super) struct Sizes {
    /// Pairs of matrices.
    pub(super) matrices: Dim,
    pub(super) rows: Dim,
    pub(super) columns: Dim,
    pub(super) depth: Dim,
}

/// How elements are read and written. All names are variables of the shader: `matrix`, and those that are given.
pub(super) trait Operands {
    /// Whether neighbours along the depth are neighbours in memory: of the left operand, of the right one.
    fn depth_first(&self) -> [bool; 2];
    /// Computes what depends on `matrix` alone.
    fn matrix(&mut self, w: &mut Writer) -> Result<(), Reason>;
    /// Computes what depends on a column alone.
    fn column(&mut self, w: &mut Writer, column: &str) -> Result<(), Reason>;
    /// Lines that set `value`, a variable that is 0, to the left element.
    fn left(&mut self, w: &mut Writer, row: &str, depth: &str) -> Result<(), Reason>;
    /// The same of the right element, after [`Operands::column`] if columns do not change with the depth.
    fn right(&mut self, w: &mut Writer, depth: &str, column: &str) -> Result<(), Reason>;
    /// Lines that store the finished `sum`.
    fn store(&mut self, w: &mut Writer, row: &str, column: &str, sum: &str) -> Result<(), Reason>;
}

/// Rows, columns and depth of a tile, and how many rows and columns a lane has; all multiples of 4.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Shape {
    rows: i64,
    columns: i64,
    depth: i64,
    lane_rows: i64,
    lane_columns: i64,
}

/// For rows of every number.
const SQUARE: Shape = Shape { rows: 64, columns: 64, depth: 16, lane_rows: 4, lane_columns: 4 };

/// For few rows, which would leave most of a square empty.
const FLAT: Shape = Shape { rows: 16, columns: 64, depth: 16, lane_rows: 4, lane_columns: 4 };

/// Rows up to which a flat tile serves.
const FEW: i64 = 24;

impl Shape {
    /// The shape for a product.
    pub(super) fn of(sizes: &Sizes) -> Shape {
        // One symbol and nothing else is a batch, of samples or of those that are left.
        let few = sizes.rows.as_const().map_or(sizes.rows.as_symbol().is_some(), |n| n <= FEW);
        if few { FLAT } else { SQUARE }
    }

    fn lanes(self) -> i64 {
        (self.rows / self.lane_rows) * (self.columns / self.lane_columns)
    }

    /// Words from one step of the depth to the next in a strip, with room that keeps banks apart.
    fn pitch(side: i64) -> i64 {
        side + 4
    }
}

/// Workgroups for a product in tiles.
pub(super) fn groups(sizes: &Sizes, shape: Shape) -> Result<Dim, Reason> {
    let tiles = |n: &Dim, by: i64| super::dims::groups(n, by);
    Ok(Dim::product([&sizes.matrices, &tiles(&sizes.rows, shape.rows)?, &tiles(&sizes.columns, shape.columns)?]))
}

/// Writes a product in tiles.
pub(super) fn write(w: &mut Writer, sizes: &Sizes, shape: Shape, operands: &mut dyn Operands) -> Result<Body, Reason> {
    let Shape { rows, columns, depth, .. } = shape;
    for (name, side) in [("left", rows), ("right", columns)] {
        w.global(format!("var<workgroup> {name}: array<vec4<f32>, {}>;", depth * Shape::pitch(side) / 4));
    }
    for (name, dim) in [("rows", &sizes.rows), ("columns", &sizes.columns), ("depth", &sizes.depth)] {
        let value = w.dim(dim)?;
        w.line(format!("let {name} = {value};"));
    }
    let matrices = w.dim(&sizes.matrices)?;
    w.line(format!("let tiles_down = (rows + {}) / {rows};", rows - 1));
    w.line(format!("let tiles_across = (columns + {}) / {columns};", columns - 1));
    w.line(format!("let tiles = tiles_down * tiles_across * {matrices};"));
    let across = columns / shape.lane_columns;
    w.line(format!("let lane_row = lane / {across} * {};", shape.lane_rows));
    w.line(format!("let lane_column = lane % {across} * {};", shape.lane_columns));
    w.line("for (var tile = group; tile < tiles; tile += groups) {");
    w.line("let tile_above = tile / tiles_across;");
    w.line(format!("let first_column = (tile - tile_above * tiles_across) * {columns};"));
    w.line("let matrix = tile_above / tiles_down;");
    w.line(format!("let first_row = (tile_above - matrix * tiles_down) * {rows};"));
    operands.matrix(w)?;
    let parts: Vec<(i64, i64)> =
        (0..shape.lane_rows).flat_map(|r| (0..shape.lane_columns / 4).map(move |c| (r, c))).collect();
    for (r, c) in &parts {
        w.line(format!("var sum_{r}_{c} = vec4<f32>();"));
    }
    // A lane's column is the same for the whole depth where neighbours of a row are neighbours in memory.
    let fixed = !operands.depth_first()[1];
    if fixed {
        w.line(format!("let strip_column = lane % {columns};"));
        w.line("let right_column = first_column + strip_column;");
        operands.column(w, "right_column")?;
    }
    w.line(format!("for (var first_depth = 0; first_depth < depth; first_depth += {depth}) {{"));
    strip_left(w, shape, operands)?;
    strip_right(w, shape, operands, fixed)?;
    w.line("workgroupBarrier();");
    multiply(w, shape, &parts);
    w.line("workgroupBarrier();");
    w.line("}");
    finish(w, shape, &parts, operands)?;
    w.line("}");
    Ok(Body { lanes: shape.lanes() as u32, groups: groups(sizes, shape)? })
}

fn strip_left(w: &mut Writer, shape: Shape, operands: &mut dyn Operands) -> Result<(), Reason> {
    let Shape { rows, depth, .. } = shape;
    w.line(format!("for (var i = lane; i < {}; i += {}) {{", rows * depth, shape.lanes()));
    match operands.depth_first()[0] {
        true => w.line(format!("let row = i / {depth};\nlet step = i % {depth};")),
        false => w.line(format!("let row = i % {rows};\nlet step = i / {rows};")),
    }
    w.line("let left_row = first_row + row;\nlet left_depth = first_depth + step;");
    w.line("var value = 0.0;");
    w.line("if left_row < rows && left_depth < depth {");
    operands.left(w, "left_row", "left_depth")?;
    w.line("}");
    w.line(format!("let place = step * {} + row;", Shape::pitch(rows)));
    w.line("left[place / 4][place % 4] = value;");
    w.line("}");
    Ok(())
}

fn strip_right(w: &mut Writer, shape: Shape, operands: &mut dyn Operands, fixed: bool) -> Result<(), Reason> {
    let Shape { columns, depth, .. } = shape;
    match fixed {
        true => {
            let by = shape.lanes() / columns;
            w.line(format!("for (var step = lane / {columns}; step < {depth}; step += {by}) {{"));
        }
        false => {
            w.line(format!("for (var i = lane; i < {}; i += {}) {{", columns * depth, shape.lanes()));
            w.line(format!("let strip_column = i / {depth};\nlet step = i % {depth};"));
            w.line("let right_column = first_column + strip_column;");
        }
    }
    w.line("let right_depth = first_depth + step;");
    w.line("var value = 0.0;");
    w.line("if right_column < columns && right_depth < depth {");
    if !fixed {
        operands.column(w, "right_column")?;
    }
    operands.right(w, "right_depth", "right_column")?;
    w.line("}");
    w.line(format!("let place = step * {} + strip_column;", Shape::pitch(columns)));
    w.line("right[place / 4][place % 4] = value;");
    w.line("}");
    Ok(())
}

fn multiply(w: &mut Writer, shape: Shape, parts: &[(i64, i64)]) {
    let [left, right] = [shape.rows, shape.columns].map(|side| Shape::pitch(side) / 4);
    w.line(format!("for (var step = 0; step < {}; step += 1) {{", shape.depth));
    for r in 0..shape.lane_rows / 4 {
        w.line(format!("let a{r} = left[step * {left} + lane_row / 4 + {r}];"));
    }
    for c in 0..shape.lane_columns / 4 {
        w.line(format!("let b{c} = right[step * {right} + lane_column / 4 + {c}];"));
    }
    for (r, c) in parts {
        let part = ["x", "y", "z", "w"][*r as usize % 4];
        w.line(format!("sum_{r}_{c} = fma(vec4<f32>(a{}.{part}), b{c}, sum_{r}_{c});", r / 4));
    }
    w.line("}");
}

fn finish(w: &mut Writer, shape: Shape, parts: &[(i64, i64)], operands: &mut dyn Operands) -> Result<(), Reason> {
    let across = shape.lane_columns / 4;
    let names: Vec<String> = parts.iter().map(|(r, c)| format!("sum_{r}_{c}")).collect();
    w.line(format!("var sums = array<vec4<f32>, {}>({});", parts.len(), names.join(", ")));
    w.line(format!("for (var i = 0; i < {}; i += 1) {{", parts.len() * 4));
    w.line("let part = i / 4;");
    w.line(format!("let row = first_row + lane_row + part / {across};"));
    w.line(format!("let column = first_column + lane_column + part % {across} * 4 + i % 4;"));
    w.line("if row < rows && column < columns {");
    w.line("let sum = sums[part][i % 4];");
    operands.store(w, "row", "column", "sum")?;
    w.line("}");
    w.line("}");
    Ok(())
}
