//! Traffic of all contenders: one round of each in turn, then the next.

use anyhow::Result;

use super::arena::Arena;
use super::case::{self, Case, Round};
use super::contender::{self, Contender};
use super::options::Measure;
use super::progress::Progress;
use super::types::{Measurement, Place, Results, Settings};
use crate::{interrupt, rr};

/// What is measured of every contender in turn.
struct Series {
    case: &'static Case,
    place: Place,
    services: u32,
    pinned: bool,
}

/// Measures all that is asked for.
pub(super) fn measure(options: &Measure, results: &mut Results) -> Result<()> {
    let cases: Vec<_> = case::ALL
        .iter()
        .filter(|case| is_wanted(case, options))
        .collect();
    let contenders: Vec<_> = contender::ALL
        .iter()
        .filter(|contender| is_chosen(contender.name, &options.contenders))
        .collect();
    let settings = results.settings.clone();
    for &services in &options.services {
        let series = series(&cases, services, options);
        let steps = series.iter().map(|series| {
            let there = contenders
                .iter()
                .filter(|contender| contender.places.contains(&series.place));
            there.count() * settings.turns(series.pinned) as usize
        });
        let steps = steps.sum::<usize>() * settings.rounds as usize;
        let mut progress = Progress::new(steps + contenders.len())?;
        let arenas = build(&contenders, services, results, &mut progress)?;
        let mut tables: Vec<_> = series.iter().map(|series| series.table(&arenas)).collect();
        for round in 0..settings.rounds as usize {
            for (series, table) in series.iter().zip(&mut tables) {
                let turns = settings.turns(series.pinned) as usize;
                for turn in 0..turns {
                    run_round(
                        round * turns + turn,
                        series,
                        &arenas,
                        table,
                        options,
                        results,
                        &mut progress,
                    )?;
                }
            }
        }
        results.traffic.extend(tables.into_iter().flatten());
        arenas.into_iter().try_for_each(Arena::down)?;
    }
    Ok(())
}

fn is_chosen(name: &str, chosen: &[String]) -> bool {
    chosen.is_empty() || chosen.iter().any(|chosen| chosen == name)
}

fn is_wanted(case: &Case, options: &Measure) -> bool {
    is_chosen(case.name, &options.only) && (case.quick || !options.quick)
}

fn series(cases: &[&'static Case], services: u32, options: &Measure) -> Vec<Series> {
    let pinnings: &[bool] = if options.quick || options.pinned {
        &[true]
    } else {
        &[true, false]
    };
    let mut all = Vec::new();
    for &case in cases {
        for place in [Place::SameNode, Place::AcrossNodes] {
            for &pinned in pinnings {
                all.push(Series {
                    case,
                    place,
                    services,
                    pinned,
                });
            }
        }
    }
    all
}

/// Builds those contenders that this machine can have; the others are skipped.
fn build(
    contenders: &[&Contender],
    services: u32,
    results: &mut Results,
    progress: &mut Progress,
) -> Result<Vec<Arena>> {
    let mut arenas = Vec::new();
    for contender in contenders {
        progress.step(&format!("setting up, {services} Services"), contender.name)?;
        let built = contender.build().and_then(|arena| {
            let bridged = arena.tune(services)?;
            arena.check()?;
            Ok((arena, bridged))
        });
        let what = format!("{} with {services} Services", contender.name);
        match built {
            Ok((arena, bridged)) => {
                arenas.push(arena);
                if !bridged {
                    let why = "this kernel has no br_netfilter";
                    let what = format!("{what}: iptables for bridged packets");
                    progress.skip(&mut results.skipped, &what, why);
                }
            }
            Err(error) => progress.skip(&mut results.skipped, &what, &format!("{error:#}")),
        }
    }
    Ok(arenas)
}

impl Series {
    /// An empty measurement for each contender that can take part.
    fn table(&self, arenas: &[Arena]) -> Vec<Measurement> {
        let here = arenas
            .iter()
            .filter(|arena| arena.ends(self.place).is_some());
        here.map(|arena| Measurement {
            case: self.case.name.to_owned(),
            place: self.place,
            services: self.services,
            contender: arena.name.to_owned(),
            pinned: self.pinned,
            unit: self.case.unit,
            ..Measurement::default()
        })
        .collect()
    }

    fn stage(&self) -> String {
        let place = match self.place {
            Place::SameNode => "same node",
            Place::AcrossNodes => "across nodes",
        };
        let pinned = if self.pinned { "one CPU" } else { "any CPU" };
        format!(
            "{}, {place}, {pinned}, {} Services",
            self.case.name, self.services
        )
    }
}

/// One round of each contender. Who goes first changes, so that none always meets a machine just warmed up.
fn run_round(
    round: usize,
    series: &Series,
    arenas: &[Arena],
    table: &mut [Measurement],
    options: &Measure,
    results: &mut Results,
    progress: &mut Progress,
) -> Result<()> {
    let count = table.len();
    for turn in 0..count {
        let measurement = &mut table[(round + turn) % count];
        progress.step(
            &format!("round {}: {}", round + 1, series.stage()),
            &measurement.contender,
        )?;
        let Some(arena) = arenas
            .iter()
            .find(|arena| arena.name == measurement.contender)
        else {
            continue;
        };
        if let Err(error) = run_one(series, arena, measurement, options, &results.settings) {
            interrupt::check()?;
            let what = format!("{}, {}, round {}", arena.name, series.stage(), round + 1);
            progress.skip(&mut results.skipped, &what, &format!("{error:#}"));
        }
    }
    Ok(())
}

fn run_one(
    series: &Series,
    arena: &Arena,
    measurement: &mut Measurement,
    options: &Measure,
    settings: &Settings,
) -> Result<()> {
    let Some([client, server]) = arena.ends(series.place) else {
        return Ok(());
    };
    arena.reset()?;
    let sample = (series.case.run)(&Round {
        client,
        server,
        cpu: if series.pinned {
            Some(rr::last_cpu()?)
        } else {
            None
        },
        stream_seconds: settings.stream_seconds as u32,
        transactions: options.transactions(),
    })?;
    measurement.rounds.push(sample.rate);
    measurement.p50_us.extend(sample.p50_us);
    measurement.p99_us.extend(sample.p99_us);
    measurement.lost.extend(sample.lost);
    Ok(())
}
