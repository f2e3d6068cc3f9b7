use super::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

fn parse(pairs: &[(&str, &str)]) -> Result<Scale, String> {
    Scale::parse(&labels(pairs))
}

#[test]
fn how_many() {
    let scale = parse(&[]).unwrap();
    assert_eq!((scale.initial(), scale.rest, scale.zero, scale.load), (1, Rest::Stopped, None, None));
    assert_eq!([0, 1, 7, 100].map(|wanted| scale.clamp(wanted)), [0, 1, 7, 20]);
    let scale = parse(&[(MIN, "2"), (MAX, "4"), (RESTS, "frozen")]).unwrap();
    assert_eq!((scale.initial(), scale.rest), (2, Rest::Frozen));
    assert_eq!([0, 1, 3, 9].map(|wanted| scale.clamp(wanted)), [0, 2, 3, 4]);
    assert_eq!(parse(&[(MIN, "30")]).unwrap().clamp(40), 30);
    assert_eq!(parse(&[(MIN, "0"), (RESTS, "")]).unwrap().initial(), 1);
}

#[test]
fn to_none() {
    let zero = |pairs: &[(&str, &str)]| parse(pairs).unwrap().zero;
    let after = |seconds| Some(Zero { after: Some(Duration::from_secs(seconds)) });
    for on in ["true", "1", " TRUE "] {
        assert_eq!(zero(&[(ZERO, on)]), Some(Zero { after: None }), "{on}");
    }
    for off in ["false", "0", ""] {
        assert_eq!(zero(&[(ZERO, off), (ZERO_DURATION, "1m")]), None, "{off}");
    }
    assert_eq!(zero(&[(ZERO_DURATION, "1m")]), None);
    assert_eq!(zero(&[(ZERO, "1"), (ZERO_DURATION, "1m30s")]), after(90));
    assert_eq!(zero(&[(ZERO, "1"), (ZERO_DURATION, "45")]), after(45));
}

#[test]
fn by_load() {
    let load = |pairs: &[(&str, &str)]| parse(pairs).unwrap().load;
    let default = Load { measure: Measure::Rps, target: 50.0, proportion: 0.9, window: DEFAULT_WINDOW };
    // Whoever says nothing of it, or nothing that means more than one, is not scaled.
    for nothing in [&[][..], &[(MIN, "3")], &[(MAX, "1")], &[(PROPORTION, "0.5")], &[(WINDOW, "1m")]] {
        assert_eq!(load(nothing), None, "{nothing:?}");
    }
    for asked in [(MAX, "2"), (TYPE, "rps"), (TARGET, "50")] {
        assert_eq!(load(&[asked]), Some(default), "{asked:?}");
    }
    let all = [(TYPE, "cpu"), (TARGET, "250.5"), (PROPORTION, "1"), (WINDOW, "2m"), (MIN, "2"), (MAX, "3")];
    let wanted =
        Load { measure: Measure::Cpu, target: 250.5, proportion: 1.0, window: Duration::from_secs(120) };
    assert_eq!(load(&all), Some(wanted));
    assert_eq!(load(&[(TYPE, "capacity"), (WINDOW, "off")]).unwrap().window, Duration::ZERO);
    assert_eq!(load(&[(TYPE, "capacity"), (WINDOW, "0")]).unwrap().measure, Measure::Capacity);
}

#[test]
fn what_others_measure_is_taken_and_does_nothing() {
    for kind in ["queue", "latency", "my-rule"] {
        let labels = labels(&[(TYPE, kind), (TARGET, "10"), (MAX, "5")]);
        assert_eq!(Scale::parse(&labels).unwrap().load, None);
        assert_eq!(Scale::foreign(&labels), Some(kind));
    }
    assert_eq!(Scale::foreign(&labels(&[(TYPE, "rps")])), None);
    assert_eq!(Scale::foreign(&labels(&[])), None);
}

#[test]
fn alerts() {
    for (firing, current, pairs, expected) in [
        (true, 1, &[][..], 2),
        (true, 0, &[], 1),
        (true, 19, &[], 20),
        (true, 20, &[], 20),
        (true, 9, &[(MAX, "5")], 5),
        (false, 5, &[], 1),
        (false, 0, &[], 1),
        (false, 1, &[(MIN, "0")], 0),
        (false, 5, &[(MIN, "2")], 2),
        (true, 1, &[(MAX, "20"), (FACTOR, "100")], 6),
        (true, 1, &[(MAX, "2"), (FACTOR, "100")], 2),
        (true, 1, &[(FACTOR, "0")], 1),
    ] {
        assert_eq!(parse(pairs).unwrap().alerted(firing, current), expected, "{firing} {current} {pairs:?}");
    }
}

#[test]
fn refusals_name_label_and_value() {
    for (pairs, wanted) in [
        (&[(MIN, "x")][..], "label com.openfaas.scale.min: \"x\" is not a number from 0 to 1000"),
        (&[(MAX, "1001")], "label com.openfaas.scale.max: \"1001\" is not a number from 0 to 1000"),
        (&[(MAX, "0")], "label com.openfaas.scale.max: 0 would never let it run"),
        (
            &[(MIN, "3"), (MAX, "2")],
            "label com.openfaas.scale.min: 3 is more than the 2 of com.openfaas.scale.max",
        ),
        (&[(FACTOR, "101")], "label com.openfaas.scale.factor: \"101\" is not a number from 0 to 100"),
        (&[(TARGET, "many")], "label com.openfaas.scale.target: \"many\" is not a number above 0"),
        (&[(TARGET, "0")], "label com.openfaas.scale.target: \"0\" is not a number above 0"),
        (&[(TARGET, "inf")], "label com.openfaas.scale.target: \"inf\" is not a number above 0"),
        (
            &[(PROPORTION, "NaN")],
            "label com.openfaas.scale.target-proportion: \"NaN\" is not a number above 0",
        ),
        (
            &[(WINDOW, "soon")],
            "label com.openfaas.scale.down.window: \"soon\" is no duration such as 90s or 15m",
        ),
        (&[(WINDOW, "6m")], "label com.openfaas.scale.down.window: is longer than 5 minutes"),
        (&[(ZERO, "yes")], "label com.openfaas.scale.zero: \"yes\" is neither true nor false"),
        (
            &[(ZERO_DURATION, "-1m")],
            "label com.openfaas.scale.zero-duration: \"-1m\" is no duration such as 90s or 15m",
        ),
        (&[(ZERO_DURATION, "0s")], "label com.openfaas.scale.zero-duration: 0 would never let it run"),
        (&[(RESTS, "ice")], "label com.bothy.scale.zero-state: \"ice\" is neither stopped nor frozen"),
    ] {
        assert_eq!(parse(pairs).unwrap_err(), wanted);
    }
}

#[test]
fn a_wrong_label_takes_no_other_one_along() {
    let scale = Scale::of(&labels(&[(MIN, "2"), (MAX, "many"), (ZERO, "true"), (ZERO_DURATION, "soon")]));
    assert_eq!((scale.initial(), scale.clamp(99), scale.zero), (2, 20, Some(Zero { after: None })));
    // Of two that do not fit the smaller one gives way.
    assert_eq!(Scale::of(&labels(&[(MIN, "3"), (MAX, "2")])).clamp(9), 3);
}
