//! Every invariant of the verifier: a graph that breaks it, and how the error reads.

use eec_ir::graph::Origin;
use eec_ir::text::parse;
use eec_ir::verify::{Stage, verify};
use eec_ir::{DType, Dim, Graph, Op, Symbol, Type, ValueId};

fn f32s(dims: &[Dim]) -> Type {
    Type::new(DType::F32, dims.iter().cloned())
}

/// A graph with an input `%x: f32[n, 4]` and a mask `%m: bool[n]`.
fn with_inputs() -> (Graph, ValueId, ValueId) {
    let mut g = Graph::new("g");
    let n = Dim::symbol("n");
    let x = g.add_input("x", f32s(&[n.clone(), 4.into()]));
    let m = g.add_input("m", Type::new(DType::Bool, [n]));
    (g, x, m)
}

fn neg(g: &mut Graph, region: eec_ir::RegionId, x: ValueId) -> ValueId {
    g.append1(region, Op::Neg {}, &[x], Origin::default()).expect("takes any number")
}

fn from_text(text: &str) -> Graph {
    parse(text, &mut |_| None).unwrap_or_else(|e| panic!("{e}"))
}

/// The violations as `invariant: message`.
fn violations(g: &Graph, stage: Stage) -> Vec<String> {
    match verify(g, stage) {
        Ok(_) => Vec::new(),
        Err(e) => e.errors.iter().map(|e| format!("{}: {}", e.invariant, e.message)).collect(),
    }
}

#[track_caller]
fn breaks(g: &Graph, stage: Stage, expected: &[&str]) {
    assert_eq!(violations(g, stage), expected);
}

/// The graph holds at `stage` and not at the next one, where these are the violations.
#[track_caller]
fn first_breaks(g: &Graph, holds: Stage, broken: Stage, expected: &[&str]) {
    breaks(g, holds, &[]);
    breaks(g, broken, expected);
}

#[test]
fn the_token_tells_graph_and_stage() {
    let (mut g, x, _) = with_inputs();
    g.set_outputs(vec![("y".into(), x)]);
    let verified = verify(&g, Stage::Lowerable).expect("holds all invariants");
    assert_eq!((verified.stage(), verified.graph().inputs().len()), (Stage::Lowerable, 2));
    assert!(Stage::Imported < Stage::Typed && Stage::Dynamic < Stage::Lowerable);
}

#[test]
fn definitions_come_before_uses() {
    let (mut g, x, _) = with_inputs();
    let a = neg(&mut g, Graph::ROOT, x);
    let b = neg(&mut g, Graph::ROOT, a);
    g.set_outputs(vec![("y".into(), b)]);
    g.move_last_before(g.def_node(a).expect("a node's result"));
    let error = verify(&g, Stage::Imported).expect_err("the operand comes later").to_string();
    let expected = "the graph breaks 1 invariant(s) of the stage Imported\n\
                    %y: f32[n, 4] = Neg(%0)\n  \
                    ^ reads %0, which Neg !0 defines later or not at all (invariant 1)";
    assert_eq!(error, expected);
}

#[test]
fn values_of_other_regions_are_not_visible() {
    let (mut g, x, _) = with_inputs();
    let yes = g.constant(eec_ir::Tensor::scalar(1u8));
    let regions = [g.new_region(None), g.new_region(None)];
    let inner = regions.map(|r| neg(&mut g, r, x));
    regions.iter().zip(inner).for_each(|(r, v)| g.set_yields(*r, vec![v]));
    g.append_control(Graph::ROOT, Op::If { exit: -1, gate: -1 }, &[yes], regions.to_vec(), Origin::default())
        .expect("same types");
    g.set_outputs(vec![("y".into(), inner[0])]);
    breaks(&g, Stage::Imported, &["1: yields %y, whose region is not visible here"]);
    g.set_yields(Graph::ROOT, vec![ValueId(99)]);
    breaks(&g, Stage::Imported, &["1: yields the value %99, which does not exist"]);
}

#[test]
fn a_region_has_one_owner() {
    let (mut g, x, _) = with_inputs();
    let yes = g.constant(eec_ir::Tensor::scalar(1u8));
    let region = g.new_region(None);
    g.set_yields(region, vec![x]);
    g.append_control(Graph::ROOT, Op::If { exit: -1, gate: -1 }, &[yes], vec![region; 2], Origin::default())
        .expect("same types");
    breaks(&g, Stage::Imported, &["2: a region is owned twice, or contains itself"]);
}

#[test]
fn a_region_that_contains_itself_is_found() {
    let (mut g, x, _) = with_inputs();
    let yes = g.constant(eec_ir::Tensor::scalar(1u8));
    let regions: Vec<_> = (0..2).map(|_| g.new_region(None)).collect();
    regions.iter().for_each(|r| g.set_yields(*r, vec![x]));
    g.append_control(Graph::ROOT, Op::If { exit: -1, gate: -1 }, &[yes], regions.clone(), Origin::default())
        .expect("same types");
    g.append_control(regions[0], Op::If { exit: -1, gate: -1 }, &[yes], regions.clone(), Origin::default())
        .expect("same types");
    let found = violations(&g, Stage::Imported);
    assert!(found.contains(&"2: a region is owned twice, or contains itself".to_string()), "{found:?}");
}

#[test]
fn types_are_what_inference_gives() {
    let (mut g, x, _) = with_inputs();
    let yes = g.constant(eec_ir::Tensor::scalar(1u8));
    let regions: Vec<_> = (0..2).map(|_| g.new_region(None)).collect();
    regions.iter().for_each(|r| g.set_yields(*r, vec![x]));
    let node = g
        .append_control(Graph::ROOT, Op::If { exit: -1, gate: -1 }, &[yes], regions.clone(), Origin::default())
        .expect("same types");
    g.set_outputs(vec![("y".into(), g.node(node).outputs[0])]);
    breaks(&g, Stage::Lowerable, &[]);
    regions.iter().for_each(|r| g.set_yields(*r, vec![yes]));
    breaks(&g, Stage::Imported, &["4: inference gives %y the type bool[], found f32[n, 4]"]);
    g.set_yields(regions[0], vec![x]);
    let found = violations(&g, Stage::Imported);
    assert!(found.len() == 1 && found[0].starts_with("4: If: the branches yield"), "{found:?}");
}

#[test]
fn inputs_and_outputs_are_named() {
    let (mut g, x, m) = with_inputs();
    g.set_name(m, "x");
    g.add_param(Graph::ROOT, f32s(&[]));
    g.set_outputs(vec![("y".into(), x), ("y".into(), x)]);
    g.set_yields(Graph::ROOT, vec![x]);
    let expected = [
        "5: expected one name per output, found 2 for 1",
        "5: input 2 has no name",
        "5: two inputs have the name \"x\"",
        "5: two outputs have the name \"y\"",
    ];
    breaks(&g, Stage::Imported, &expected);
}

#[test]
fn sizes_are_known_and_bounded() {
    let mut g = Graph::new("g");
    g.add_input("x", f32s(&[Dim::from(-1), &Dim::symbol("n") * &Dim::from(Dim::LIMIT)]));
    let values = vec![Dim::symbol("k"), Dim::symbol("n")];
    g.append(Graph::ROOT, Op::Sizes { values }, &[], Origin::default()).expect("a vector of two");
    let values = vec![Dim::symbol("n").smaller(&(&Dim::from(Dim::LIMIT) + &Dim::symbol("m")))];
    g.append(Graph::ROOT, Op::Sizes { values }, &[], Origin::default()).expect("a vector of one");
    let unknown = |s: &str| {
        format!("6: the symbol {s} is neither an input's nor one that a region around it or a node before it gives")
    };
    let found = violations(&g, Stage::Imported);
    let expected = [
        "6: a dim must not be negative, found -1".to_string(),
        "6: the size 281474976710656*n goes beyond 281474976710656".to_string(),
        unknown("k"),
        "6: the size min(m+281474976710656, n) goes beyond 281474976710656".to_string(),
        unknown("m"),
    ];
    for e in &expected {
        assert!(found.contains(e), "{e}\nis not in {found:#?}");
    }
    assert!(found.len() == expected.len(), "{found:#?}");
}

const ROUTE: &str = "graph @g(%x: f32[n, 4], %m: bool[n], %w: f32[4]) -> (%y: f32[n, 4]) {
  %a = Add(%x, %w)
  %y = Route{exit=EXIT}(%m; %x)
    then ^1[r0](%h: f32[r0, 4]) {
      %b = Add(%h, THEN)
      yield %b
    }
    else ^2[r1](%i: f32[r1, 4]) {
      %j = Neg(%i)
      %k = Greater(%i, 0.5)
      %mask = ReduceMax{axes=[1], keepdims=0}(%j)
      %go = Greater(%mask, 0.5)
      %l = Route{exit=INNER}(%go; %j)
        then ^3[r2](%o: f32[r2, 4]) {
          %p = Add(%o, DEEP)
          yield %p
        }
        else ^4[r3](%q: f32[r3, 4]) {
          yield %q
        }
      yield %l
    }
  return %y
}";

fn route(then: &str, deep: &str, exits: [&str; 2]) -> Graph {
    from_text(&ROUTE.replace("THEN", then).replace("DEEP", deep).replace("EXIT", exits[0]).replace("INNER", exits[1]))
}

#[test]
fn a_route_reads_nothing_that_depends_on_the_row() {
    breaks(&route("%w", "%w", ["0", "1"]), Stage::Lowerable, &[]);
    let message = |name: &str, rows: &str| {
        format!("8: reads {name} of type f32[{rows}, 4] from outside a Route over those rows; pass it as an operand")
    };
    let text = ROUTE.replace("%b = Add(%h, THEN)", "%t = Neg(%a)\n %b = Add(%h, %w)").replace("EXIT", "0");
    let text = text.replace("INNER", "1");
    let outer = text.replace("%p = Add(%o, DEEP)", "%u = Neg(%x)\n %v = Neg(%j)\n %p = Neg(%o)");
    let expected = [message("%a", "n"), message("%x", "n"), message("%j", "r1")];
    assert_eq!(violations(&from_text(&outer), Stage::Imported), expected);
}

#[test]
fn row_symbols_belong_to_one_region() {
    let (mut g, x, m) = with_inputs();
    for symbol in ["r", "r", "n"] {
        let regions: Vec<_> = ["s", symbol].map(|s| g.new_region(Some(Symbol::new(s)))).to_vec();
        for (r, s) in regions.iter().zip(["s", symbol]) {
            let p = g.add_param(*r, f32s(&[Dim::symbol(s), 4.into()]));
            g.set_yields(*r, vec![p]);
        }
        g.append_control(Graph::ROOT, Op::Route { exit: -1, gate: -1 }, &[m, x], regions, Origin::default())
            .expect("fits");
    }
    let yes = g.constant(eec_ir::Tensor::scalar(1u8));
    let regions: Vec<_> = (0..2).map(|_| g.new_region(Some(Symbol::new("t")))).collect();
    g.append_control(Graph::ROOT, Op::If { exit: -1, gate: -1 }, &[yes], regions, Origin::default()).expect("fits");
    let twice = |s: &str| format!("7: the row symbol {s} is used twice");
    let no_route = "7: a region that is not a Route's has the row symbol t".to_string();
    let expected = [twice("s"), twice("r"), twice("s"), twice("n"), no_route.clone(), no_route];
    assert_eq!(violations(&g, Stage::Imported), expected);
}

const JOIN: &str = "graph @g(%x: f32[n, 6, 4], %m: bool[n]) -> (%y: f32[n, 4]) {
  %y = Route(%m; %x)
    then ^1[r0](%a: f32[r0, 6, 4]) {
      %b = Slice{axes=[1], starts=[0], ends=[2], steps=[1]}(%a)
      yield %b, const i64[2] {0, 1}
    }
    else ^2[r1](%c: f32[r1, 6, 4]) {
      yield %c, const i64[6] {0, 1, 2, 3, 4, 5}
    }
    join ^3[r2, t](%h: f32[r2, t, 4], %p: i64[t]) {
      %z = ReduceMax{axes=[1], keepdims=0}(%h)
      yield %z
    }
  return %y
}";

fn join(changes: &[(&str, &str)]) -> String {
    changes.iter().fold(JOIN.to_string(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    })
}

#[test]
fn a_join_takes_what_both_sides_yield() {
    breaks(&from_text(JOIN), Stage::Lowerable, &[]);
    let refuse = |changes: &[(&str, &str)], part: &str| {
        let error = parse(&join(changes), &mut |_| None).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains(part), "{error} does not say {part:?}");
    };
    refuse(&[(", %p: i64[t]", "")], "^3 takes 1 parameters, but 2 and 2 values are yielded");
    refuse(&[("f32[r2, t, 4]", "f32[r2, t, 5]")], "5 must be 4 and 4");
    refuse(&[("f32[r2, t, 4]", "f32[r2, 6, 4]")], "6 must be 2 and 6");
    refuse(&[("f32[r2, t, 4]", "f32[n, t, 4]")], "the size r0 is unknown outside of its region");
    refuse(&[("%p: i64[t]", "%p: i32[t]")], "element types and numbers of dims must be equal");
    refuse(&[("%p: i64[t]", "%p: i64[t, 1]")], "element types and numbers of dims must be equal");
    refuse(&[("i64[2] {0, 1}", "i64[3] {0, 1, 2}")], "t stands for 2 and 6 elsewhere, here for 3 and 6");
    refuse(&[("[r2, t](", "[r2, t, u](")], "expected `]`");
    refuse(&[("%y = Route(%m; %x)", "%y = If(%m)")], "needs 2 regions, found 3");
    // One length, wherever it stands.
    refuse(&[("[r2, t](", "[r2, u](")], "t must be 2 and 6");
    let unused = [("%h: f32[r2, t, 4], %p: i64[t]", "%h: f32[r2, 6, 4], %p: i64[6]"), ("ends=[2]", "ends=[6]")];
    let unused = [unused.as_slice(), &[("const i64[2] {0, 1}", "const i64[6] {0, 1, 2, 3, 4, 5}")]].concat();
    refuse(&unused, "no parameter of ^3 has its length symbol t as a dim");
}

#[test]
fn the_sizes_of_a_join_stay_inside() {
    let leaks = |result: &str, part: &str| {
        let error = parse(&join(&[("yield %z", result)]), &mut |_| None).err().map(|e| e.to_string());
        assert!(error.as_ref().is_some_and(|e| e.contains(part)), "{error:?} does not say {part:?}");
    };
    leaks("yield %h", "of type f32[r2, t, 4], whose size t is unknown outside");
    leaks("yield %p", "must have r2 as its first dim");
    let outside = join(&[("return %y", "%q = Expand{dims=[t]}(1.0)\n  return %y")]);
    let message = "6: the symbol t is neither an input's nor one that a region around it or a node before it gives";
    breaks(&from_text(&outside), Stage::Imported, &[message, message]);
    // In `then` as well, which does not lie around the join.
    let inside = join(&[("%b = Slice", "%q = Expand{dims=[t, r2]}(1.0)\n      %b = Slice")]);
    assert_eq!(violations(&from_text(&inside), Stage::Imported).len(), 4);
}

#[test]
fn length_symbols_belong_to_one_join() {
    let twice = |s: &str| format!("7: the length symbol {s} is used twice");
    for symbol in ["r0", "r2", "n"] {
        let text =
            join(&[("[r2, t](", &format!("[r2, {symbol}](")), ("[r2, t, 4]", "[r2, LEN, 4]"), ("i64[t]", "i64[LEN]")]);
        let found = parse(&text.replace("LEN", symbol), &mut |_| None).map(|g| violations(&g, Stage::Imported));
        match found {
            Ok(found) => assert!(found.contains(&twice(symbol)), "{found:#?}"),
            Err(e) => assert!(e.to_string().contains("unknown outside"), "{e}"),
        }
    }
    let elsewhere = join(&[("then ^1[r0]", "then ^1[r0, u]")]);
    let message = "7: a region that is no join has the length symbol u";
    breaks(&from_text(&elsewhere), Stage::Imported, &[message]);
}

#[test]
fn a_join_reads_nothing_of_its_rows_and_sides() {
    let rows = join(&[("%z = ReduceMax", "%q = Neg(%x)\n      %z = ReduceMax")]);
    let message = "8: reads %x of type f32[n, 6, 4] from outside a Route over those rows; pass it as an operand";
    breaks(&from_text(&rows), Stage::Imported, &[message]);
    let side = join(&[("%z = ReduceMax", "%q = Neg(%b)\n      %z = ReduceMax")]);
    let error = parse(&side, &mut |_| None).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(error.contains("%b is defined in a region that is not visible here"), "{error}");
}

#[test]
fn shapes_are_symbolic_from_typed_on() {
    let g = from_text("graph @g(%x: f32[n, 4]) -> (%s: i64[2]) {\n %s = Shape(%x)\n return %s\n}");
    let message = "9: sizes must be symbolic here; simplify the graph first";
    first_breaks(&g, Stage::Imported, Stage::Typed, &[message]);
}

#[test]
fn exits_are_numbered_in_execution_order() {
    breaks(&route("%w", "%w", ["0", "-1"]), Stage::Lowerable, &[]);
    let late = [
        "10: this is exit 0 in execution order, found number 1",
        "10: this is exit 1 in execution order, found number 0",
    ];
    first_breaks(&route("%w", "%w", ["1", "0"]), Stage::Typed, Stage::Dynamic, &late);
    let gap = ["10: this is exit 1 in execution order, found number 2"];
    first_breaks(&route("%w", "%w", ["0", "2"]), Stage::Typed, Stage::Dynamic, &gap);
}

#[test]
fn gates_are_numbered_without_holes() {
    let gates = |outer: &str, inner: &str| {
        let text = ROUTE.replace("exit=EXIT", outer).replace("exit=INNER", inner);
        from_text(&text.replace("THEN", "%w").replace("DEEP", "%w"))
    };
    breaks(&gates("gate=1", "gate=0"), Stage::Lowerable, &[]);
    breaks(&gates("gate=0", "exit=0"), Stage::Lowerable, &[]);
    let both = ["11: a node is an exit or a gate, not both"];
    first_breaks(&gates("exit=0, gate=0", "exit=-1"), Stage::Typed, Stage::Dynamic, &both);
    let hole = ["11: gates are numbered without holes: expected a number below 2, found 2"];
    first_breaks(&gates("gate=0", "gate=2"), Stage::Typed, Stage::Dynamic, &hole);
    let twice = ["11: two gates have the number 0"];
    first_breaks(&gates("gate=0", "gate=0"), Stage::Typed, Stage::Dynamic, &twice);
}

#[test]
fn rows_that_have_left_decide_nothing() {
    let swapped = ROUTE.replace("then ^1", "LATER").replace("else ^2", "then ^2");
    let (head, rest) = swapped.split_once("    LATER").expect("the then region");
    let (moved, rest) = rest.split_once("    then ^2").expect("the else region");
    let (body, tail) = rest.split_once("      yield %l\n    }\n").expect("its end");
    let text = format!("{head}    then ^2{body}      yield %l\n    }}\n    else ^1{moved}{tail}");
    let g = from_text(&text.replace("THEN", "%w").replace("DEEP", "%w").replace("EXIT", "0").replace("INNER", "1"));
    let message = "10: an exit inside the `then` region of exit 0, whose rows have left";
    first_breaks(&g, Stage::Typed, Stage::Dynamic, &[message]);
}

#[test]
fn a_run_can_bind_every_symbol() {
    let text = |past: &str| {
        format!("graph @g(%x: f32[past+seq], %k: f32[{past}, seq]) -> (%x: f32[past+seq]) {{\n return %x\n}}")
    };
    breaks(&from_text(&text("past")), Stage::Lowerable, &[]);
    let message = "12: no input has past by itself as a dim, so a run cannot bind it";
    first_breaks(&from_text(&text("2*past")), Stage::Dynamic, Stage::Lowerable, &[message]);
}
