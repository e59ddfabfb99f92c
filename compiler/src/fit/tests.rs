//! Whole fits on made-up data: what is learned, what is reproducible, what is refused.

use super::random::Random;
use super::train::SMALL_DATA_L2;
use super::*;

/// Features of `classes` noisy clusters, logits that favour the cluster, and its index as label.
struct Data {
    width: usize,
    classes: usize,
    x: Vec<f32>,
    logits: Vec<f32>,
    labels: Vec<i64>,
}

fn data(rows: usize, width: usize, classes: usize, noise: f64) -> Data {
    let mut random = Random::new(7);
    let centres: Vec<f64> = (0..classes * width).map(|_| random.normal()).collect();
    let (mut x, mut logits, mut labels) = (vec![], vec![], vec![]);
    for r in 0..rows {
        let class = (r * 7 + r / 3) % classes;
        for j in 0..width {
            let spread = 1.0 + j as f64;
            x.push(((centres[class * width + j] + noise * random.normal()) * spread + 50.0) as f32);
        }
        logits.extend((0..classes).map(|c| if c == class { 4.0 } else { random.normal() as f32 }));
        labels.push(class as i64);
    }
    Data { width, classes, x, logits, labels }
}

impl Data {
    fn features(&self) -> Features<'_> {
        let rows = self.labels.len();
        Features { candidate: "block.3", rows, width: self.width, values: &self.x }
    }

    fn targets(&self, labels: bool) -> Targets<'_> {
        Targets { logits: &self.logits, classes: self.classes, labels: labels.then_some(self.labels.as_slice()) }
    }

    fn accuracy(&self, head: &Head, rows: std::ops::Range<usize>) -> f64 {
        let n = rows.len() as f64;
        let right = rows.filter(|&r| argmax(&head.logits(self.features().row(r))) as i64 == self.labels[r]);
        right.count() as f64 / n
    }

    fn fit(&self, options: &FitOptions, labels: bool) -> Result<FittedHead, FitError> {
        let rows: Vec<usize> = (0..self.labels.len() / 2).collect();
        fit_head(&self.features(), &self.targets(labels), &rows, options)
    }
}

fn mlp(activation: Activation) -> FitOptions {
    FitOptions { kind: HeadKind::Mlp { width: None, activation }, ..FitOptions::default() }
}

#[test]
fn heads_learn_clusters_with_and_without_labels() {
    let data = data(600, 12, 5, 0.8);
    for options in [FitOptions::default(), mlp(Activation::Relu), mlp(Activation::GeluTanh)] {
        for labels in [true, false] {
            let fitted = data.fit(&options, labels).unwrap();
            assert!(data.accuracy(&fitted.head, 300..600) > 0.9, "{:?}", fitted.stats);
            assert!(fitted.stats.final_loss < 0.5 * fitted.stats.first_loss);
            assert_eq!(fitted.stats.train_accuracy.is_some(), labels);
        }
    }
}

#[test]
fn an_mlp_learns_what_no_linear_head_can() {
    let mut data = data(800, 2, 2, 1.0);
    let mut random = Random::new(3);
    data.x.iter_mut().for_each(|x| *x = random.normal() as f32);
    for r in 0..800 {
        let sign = |v: f32| v > 0.0;
        let class = usize::from(sign(data.x[2 * r]) == sign(data.x[2 * r + 1]));
        data.labels[r] = class as i64;
        data.logits[2 * r + class] = 4.0;
        data.logits[2 * r + 1 - class] = -1.0;
    }
    let wide = HeadKind::Mlp { width: Some(16), activation: Activation::Relu };
    let linear = data.fit(&FitOptions::default(), true).unwrap();
    let bent = data.fit(&FitOptions { kind: wide, ..FitOptions::default() }, true).unwrap();
    assert!(data.accuracy(&linear.head, 400..800) < 0.75);
    assert!(data.accuracy(&bent.head, 400..800) > 0.9);
}

#[test]
fn the_seed_decides_and_nothing_else() {
    let data = data(300, 6, 3, 1.0);
    let options = mlp(Activation::Relu);
    let first = data.fit(&options, true).unwrap();
    assert_eq!(first, data.fit(&options, true).unwrap());
    let other = data.fit(&FitOptions { seed: 1, ..options }, true).unwrap();
    assert_ne!(first.head, other.head);
}

#[test]
fn a_class_that_never_occurs_is_fine_and_few_rows_use_the_fixed_penalty() {
    let mut data = data(60, 4, 3, 0.5);
    data.labels.iter_mut().for_each(|l| *l %= 2);
    let fitted = data.fit(&FitOptions::default(), true).unwrap();
    assert_eq!(fitted.stats.l2, SMALL_DATA_L2);
    assert_eq!(fitted.head.output.bias.len(), 3);
    assert!(fitted.head.output.weight.iter().all(|w| w.is_finite()));
}

#[test]
fn bad_data_is_refused_by_name_and_row() {
    let good = data(100, 4, 3, 0.5);
    let refuse = |change: &dyn Fn(&mut Data)| {
        let mut bad = data(100, 4, 3, 0.5);
        change(&mut bad);
        bad.fit(&FitOptions::default(), true).unwrap_err().to_string()
    };
    assert_eq!(refuse(&|d| d.x[4 * 31 + 2] = f32::NAN), "fit at block.3: feature of row 31 is not finite (column 2)");
    assert_eq!(
        refuse(&|d| d.logits[3 * 8] = f32::INFINITY),
        "fit at block.3: plain logit of row 8 is not finite (column 0)"
    );
    assert_eq!(refuse(&|d| d.labels[5] = 3), "fit at block.3: row 5 has label 3, but there are 3 classes");
    assert!(refuse(&|d| d.labels[5] = -1).contains("label -1"));
    assert!(refuse(&|d| d.x.truncate(399)).contains("399 values, expected 400"));
    let short = &good.labels[..99];
    let targets = Targets { labels: Some(short), ..good.targets(true) };
    let rows: Vec<usize> = (0..50).collect();
    let error = fit_head(&good.features(), &targets, &rows, &FitOptions::default()).unwrap_err();
    assert!(error.to_string().contains("labels holds 99 values"));
}

#[test]
fn bad_rows_and_options_are_refused() {
    let data = data(100, 4, 3, 0.5);
    let fit = |rows: &[usize], options: &FitOptions| {
        fit_head(&data.features(), &data.targets(true), rows, options).unwrap_err()
    };
    let rows: Vec<usize> = (0..50).collect();
    let options = FitOptions::default();
    assert!(matches!(fit(&rows[..15], &options), FitError::TooFewRows { needed: 16, found: 15, .. }));
    assert!(matches!(fit(&[[100].as_slice(), &rows].concat(), &options), FitError::RowOutOfRange { row: 100, .. }));
    for bad in [
        FitOptions { alpha: 1.5, ..options },
        FitOptions { temperature: 0.0, ..options },
        FitOptions { temperature: f64::NAN, ..options },
        FitOptions { l2: L2::Fixed(-1.0), ..options },
        FitOptions { kind: HeadKind::Mlp { width: Some(0), activation: Activation::Relu }, ..options },
    ] {
        assert!(matches!(fit(&rows, &bad), FitError::Option { .. }));
    }
}

/// Timing on the shape of a small vision transformer; run with `--release -- --ignored --nocapture`.
#[test]
#[ignore = "prints wall times, checks nothing"]
fn time_of_a_fit() {
    let data = data(4000, 128, 10, 3.0);
    for options in [FitOptions::default(), mlp(Activation::Relu), mlp(Activation::GeluTanh)] {
        let start = std::time::Instant::now();
        let fitted = data.fit(&options, true).unwrap();
        let seconds = start.elapsed().as_secs_f64();
        let held = data.accuracy(&fitted.head, 2000..4000);
        println!("{seconds:.3} s, accuracy {held:.3}, {:?}", fitted.stats);
    }
}
