//! Minimises a smooth function of many variables with L-BFGS (Nocedal and Wright, Numerical
//! Optimization, 2006, chapter 7), keeping the best point seen.

use std::cell::{Cell, RefCell};

use argmin::core::{CostFunction, Error, Executor, Gradient, State};
use argmin::solver::linesearch::MoreThuenteLineSearch;
use argmin::solver::quasinewton::LBFGS;

/// Pairs of steps that L-BFGS remembers.
const MEMORY: usize = 10;

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Most iterations.
    pub(crate) iterations: u64,
    /// Stops below this gradient norm.
    pub(crate) gradient: f64,
    /// Stops when an iteration changes the value by less.
    pub(crate) change: f64,
}

/// The best point found.
#[derive(Clone, Debug)]
pub(crate) struct Minimum {
    pub(crate) parameters: Vec<f64>,
    pub(crate) gradient_norm: f64,
    pub(crate) iterations: u64,
    pub(crate) evaluations: u64,
    /// Whether a tolerance was met, not merely the limit of iterations or of precision.
    pub(crate) converged: bool,
}

/// One evaluated point.
#[derive(Clone, Debug, Default)]
struct Point {
    parameters: Vec<f64>,
    value: f64,
    gradient: Vec<f64>,
}

/// The function as the solver sees it: the value and the gradient at a point cost one evaluation.
struct Problem<'a, F> {
    function: &'a F,
    last: &'a RefCell<Point>,
    best: &'a RefCell<Point>,
    evaluations: &'a Cell<u64>,
}

impl<F: Fn(&[f64]) -> (f64, Vec<f64>)> Problem<'_, F> {
    fn visit(&self, parameters: &[f64]) {
        if self.last.borrow().parameters == parameters {
            return;
        }
        let (value, gradient) = (self.function)(parameters);
        self.evaluations.set(self.evaluations.get() + 1);
        let point = Point { parameters: parameters.to_vec(), value, gradient };
        if value < self.best.borrow().value {
            self.best.replace(point.clone());
        }
        self.last.replace(point);
    }
}

impl<F: Fn(&[f64]) -> (f64, Vec<f64>)> CostFunction for Problem<'_, F> {
    type Param = Vec<f64>;
    type Output = f64;

    fn cost(&self, parameters: &Vec<f64>) -> Result<f64, Error> {
        self.visit(parameters);
        Ok(self.last.borrow().value)
    }
}

impl<F: Fn(&[f64]) -> (f64, Vec<f64>)> Gradient for Problem<'_, F> {
    type Param = Vec<f64>;
    type Gradient = Vec<f64>;

    fn gradient(&self, parameters: &Vec<f64>) -> Result<Vec<f64>, Error> {
        self.visit(parameters);
        Ok(self.last.borrow().gradient.clone())
    }
}

/// Minimises `function`, which returns value and gradient, from `start`.
///
/// # Errors
///
/// The reason, if the value at the start is not finite or the solver refuses its options.
pub(crate) fn minimise<F: Fn(&[f64]) -> (f64, Vec<f64>)>(
    function: &F,
    start: Vec<f64>,
    limits: Limits,
) -> Result<Minimum, String> {
    let (value, gradient) = function(&start);
    if !value.is_finite() {
        return Err(format!("the loss is {value} at the start"));
    }
    let first = Point { parameters: start.clone(), value, gradient };
    let small = norm(&first.gradient) < limits.gradient;
    let (last, best) = (RefCell::new(first.clone()), RefCell::new(first));
    let evaluations = Cell::new(1);
    let problem = Problem { function, last: &last, best: &best, evaluations: &evaluations };
    let (iterations, converged) =
        if small { (0, true) } else { run(problem, start, limits).map_err(|e| e.to_string())? };
    let best = best.into_inner();
    Ok(Minimum {
        gradient_norm: norm(&best.gradient),
        parameters: best.parameters,
        iterations,
        evaluations: evaluations.get(),
        converged,
    })
}

/// Runs the solver; returns its iterations and whether a tolerance was met. A line search that
/// finds no step has reached the precision of the function; the best point stands.
fn run<F: Fn(&[f64]) -> (f64, Vec<f64>)>(
    problem: Problem<'_, F>,
    start: Vec<f64>,
    limits: Limits,
) -> Result<(u64, bool), Error> {
    let search = MoreThuenteLineSearch::new().with_c(1e-4, 0.9)?;
    let solver = LBFGS::new(search, MEMORY).with_tolerance_grad(limits.gradient)?.with_tolerance_cost(limits.change)?;
    let count = problem.evaluations;
    let run = Executor::new(problem, solver)
        .configure(|state| state.param(start).max_iters(limits.iterations))
        .ctrlc(false)
        .timer(false)
        .run();
    Ok(match run {
        Ok(result) => {
            let iterations = result.state().get_iter();
            (iterations, iterations < limits.iterations)
        }
        Err(_) => (count.get(), false),
    })
}

fn norm(v: &[f64]) -> f64 {
    v.iter().map(|x| x * x).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { iterations: 200, gradient: 1e-8, change: 0.0 };

    #[test]
    fn finds_the_minimum_of_a_skewed_valley() {
        // Rosenbrock's function, minimum 0 at (1, 1).
        let f = |p: &[f64]| {
            let (a, b) = (1.0 - p[0], p[1] - p[0] * p[0]);
            (a * a + 100.0 * b * b, vec![-2.0 * a - 400.0 * p[0] * b, 200.0 * b])
        };
        let minimum = minimise(&f, vec![-1.2, 1.0], LIMITS).unwrap();
        assert!((minimum.parameters[0] - 1.0).abs() < 1e-6);
        assert!((minimum.parameters[1] - 1.0).abs() < 1e-6);
        assert!(minimum.converged);
    }

    #[test]
    fn a_start_at_the_minimum_stays_and_nan_is_refused() {
        let f = |p: &[f64]| (p[0] * p[0], vec![2.0 * p[0]]);
        assert_eq!(minimise(&f, vec![0.0], LIMITS).unwrap().iterations, 0);
        assert!(minimise(&|_: &[f64]| (f64::NAN, vec![0.0]), vec![0.0], LIMITS).is_err());
    }
}
