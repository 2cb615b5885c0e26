//! One case: a few requests that belong together, made from a seed and a number alone.

use gauntlet::seed::Numbers;

use crate::hostile;
use crate::json::Json;
use crate::mutation;
use crate::request::{Caller, Due, Framing, Keys, Request, Side};
use crate::routes::{Route, Routes};

/// A job that no case has made.
const NOBODY: &str = "01890000-0000-7000-8000-000000000000";

/// A case being played.
#[derive(Debug)]
pub(crate) struct Case<'routes> {
    routes: &'routes Routes,
    keys: &'routes Keys,
    numbers: Numbers,
    /// How many requests are still to come.
    left: usize,
    first: bool,
    /// The job that the case has made.
    pub(crate) job: Option<String>,
}

impl<'routes> Case<'routes> {
    pub(crate) fn new(
        routes: &'routes Routes,
        keys: &'routes Keys,
        seed: u64,
        number: u64,
    ) -> Self {
        // Neighbouring cases must not see each other's numbers.
        let mut mixed = Numbers::of(seed ^ number.wrapping_mul(0xd134_2543_de82_ef95));
        let mut numbers = Numbers::of(mixed.draw());
        let left = if numbers.index(4) == 0 {
            2 + numbers.index(5)
        } else {
            1
        };
        Self {
            routes,
            keys,
            numbers,
            left,
            first: true,
            job: None,
        }
    }

    /// The next request, until there is none.
    pub(crate) fn next(&mut self) -> Option<Request> {
        self.left = self.left.checked_sub(1)?;
        let begins = std::mem::replace(&mut self.first, false) && self.left > 0;
        if begins {
            // A sequence begins with a job that is there, so this one is sent as it should be.
            let made = [
                ("POST", "/jobs"),
                ("POST", "/trigger_runner"),
                ("POST", "/run"),
                ("POST", "/batch"),
            ];
            let (method, end) = made[self.numbers.index(4).min(self.numbers.index(4))];
            let route = self.routes.find(method, end).clone();
            return Some(self.request(&route, false));
        }
        let route = if self.job.is_some() && self.numbers.index(4) > 0 {
            let of_jobs: Vec<&Route> = self
                .routes
                .all
                .iter()
                .filter(|route| is_about_a_job(route))
                .collect();
            of_jobs[self.numbers.index(of_jobs.len())].clone()
        } else {
            self.routes.all[self.numbers.index(self.routes.all.len())].clone()
        };
        let spoilt = self.numbers.index(5) > 0;
        let mut request = self.request(&route, spoilt);
        if spoilt {
            for _ in 0..=self.numbers.index(3).min(self.numbers.index(3)) {
                mutation::request(&mut request, &mut self.numbers);
            }
        }
        Some(request)
    }

    fn request(&mut self, route: &Route, spoilt: bool) -> Request {
        let id = self.job.clone().unwrap_or_else(|| NOBODY.to_owned());
        let mut target = route.path.replace("{id}", &id);
        if self.numbers.index(4) == 0 {
            target = target.replace("/api/v1/ops", "/api/ops");
        }
        let mut join = '?';
        for parameter in &route.query {
            if self.numbers.index(4) == 0 {
                let value = parameter.value(&mut self.numbers);
                let value = String::from_utf8_lossy(&hostile::encoded(&value)).into_owned();
                target.push_str(&format!("{join}{}={value}", parameter.name));
                join = '&';
            }
        }
        let mut request = Request {
            side: route.side,
            route: route.name(),
            method: route.method.clone().into_bytes(),
            target: target.into_bytes(),
            headers: Vec::new(),
            body: self.body(route, &id, spoilt),
            framing: Framing::Length,
            due: Due::Answer,
            caller: Caller::Known,
            path_intact: true,
            is_changed: spoilt,
            raw: None,
        };
        match route.side {
            Side::ControlPlane => request.header("X-Ops-Key", self.keys.ops.clone()),
            Side::Runner => request.header("X-Runner-Token", self.keys.runner.clone()),
        }
        if !request.body.is_empty() {
            request.header("Content-Type", "application/json");
        }
        if route.takes_key && self.numbers.index(4) == 0 {
            // Few keys, so that requests meet the same one again.
            request.header("Idempotency-Key", format!("key-{}", self.numbers.index(50)));
        }
        if route.is_open() {
            request.caller = Caller::Unclear;
        }
        request
    }

    fn body(&mut self, route: &Route, id: &str, spoilt: bool) -> Vec<u8> {
        let Some(schema) = &route.body else {
            // Where none is taken, one is sent now and then.
            return if spoilt && self.numbers.index(6) == 0 {
                hostile::json(&mut self.numbers)
            } else {
                Vec::new()
            };
        };
        let mut json: Json = self.routes.fitting("", schema, &mut self.numbers, id);
        if spoilt {
            for _ in 0..self.numbers.index(3) {
                mutation::body(&mut json, &mut self.numbers);
            }
        }
        json.bytes()
    }
}

fn is_about_a_job(route: &Route) -> bool {
    route.names_a_job()
        || ["/run", "/trigger_runner", "/tick"]
            .iter()
            .any(|end| route.path.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn played(seed: u64, number: u64) -> Vec<Vec<u8>> {
        let routes = Routes::read();
        let keys = Keys {
            ops: "o".to_owned(),
            runner: "r".to_owned(),
        };
        let mut case = Case::new(&routes, &keys, seed, number);
        let mut requests = Vec::new();
        while let Some(request) = case.next() {
            case.job.get_or_insert_with(|| "one".to_owned());
            requests.push(request.bytes());
        }
        requests
    }

    #[test]
    fn the_same_seed_and_number_make_the_same_requests() {
        for number in 0..300 {
            assert_eq!(played(7, number), played(7, number), "{number}");
        }
        assert_ne!(played(7, 0), played(8, 0));
    }

    #[test]
    fn a_thousand_cases_meet_every_route_and_have_sequences() {
        let routes = Routes::read();
        let keys = Keys {
            ops: "o".to_owned(),
            runner: "r".to_owned(),
        };
        let mut met = std::collections::BTreeSet::new();
        let mut longest = 0;
        for number in 0..1000 {
            let mut case = Case::new(&routes, &keys, 1, number);
            let mut length = 0;
            while let Some(request) = case.next() {
                met.insert(request.route);
                length += 1;
            }
            longest = longest.max(length);
        }
        assert_eq!(met.len(), routes.all.len());
        assert!(longest > 3);
    }
}
