//! A client that others use, unchanged: the crate `redis`.

use std::collections::BTreeSet;

use dogsled::ambient::moment;
use redis::{Commands, RedisResult};

use super::cluster::{Cluster, PATIENCE};

#[test]
fn the_redis_crate_works_unchanged() {
    let cluster = Cluster::start(3);
    for protocol in ["", "?protocol=resp3"] {
        let open = |node: usize| {
            let url = format!("redis://127.0.0.1:{}/{protocol}", cluster.nodes[node].resp);
            redis::Client::open(url).unwrap().get_connection().unwrap()
        };
        let (mut first, mut second) = (open(0), open(2));
        // It may be repeated as a whole, if the machine stood still and the nodes lost each other.
        let end = moment().plus(PATIENCE);
        while let Err(error) = use_it(&mut first, &mut second) {
            let for_now = ["NOREPLICAS", "CLUSTERDOWN", "TRYAGAIN", "INDOUBT"];
            assert!(moment() < end && error.code().is_some_and(|code| for_now.contains(&code)), "{error}");
        }
    }
}

/// What one connection writes the other one reads, through another node.
fn use_it(writer: &mut redis::Connection, reader: &mut redis::Connection) -> RedisResult<()> {
    let _: () = writer.set("greeting", "hello\r\n\0wörld")?;
    assert_eq!(reader.get::<_, String>("greeting")?, "hello\r\n\0wörld");
    assert_eq!(reader.get::<_, Option<String>>("absent")?, None);
    let _: () = writer.set_ex("fleeting", "soon gone", 1_000)?;
    let ttl: i64 = reader.ttl("fleeting")?;
    assert!((900..=1_000).contains(&ttl), "{ttl}");
    assert_eq!((reader.ttl::<_, i64>("greeting")?, reader.ttl::<_, i64>("absent")?), (-1, -2));
    assert!(reader.exists::<_, bool>("greeting")?);

    let _: () = writer.mset(&[("a", "1"), ("b", "2"), ("c", "3")])?;
    let found: Vec<Option<String>> = reader.mget(&["a", "absent", "c"])?;
    assert_eq!(found, [Some("1".to_owned()), None, Some("3".to_owned())]);

    let piped: (String, Option<i64>, i64) =
        redis::pipe().set("p", 7).ignore().get("greeting").get("p").del(&["p", "absent"]).query(writer)?;
    assert_eq!(piped, ("hello\r\n\0wörld".to_owned(), Some(7), 1));
    assert_eq!(reader.get::<_, Option<i64>>("p")?, None);

    let keys: BTreeSet<String> = (0..500).map(|number| format!("scan:{number}")).collect();
    let mut pipe = redis::pipe();
    for key in &keys {
        pipe.set(key, "x").ignore();
    }
    let () = pipe.query(writer)?;
    let scanned = reader.scan_match::<_, String>("scan:*")?.collect::<RedisResult<BTreeSet<_>>>()?;
    assert_eq!(scanned, keys);
    let _: () = writer.del(keys.iter().collect::<Vec<_>>())?;
    assert_eq!(reader.scan_match::<_, String>("scan:*")?.count(), 0);
    let _: () = writer.del(&["greeting", "fleeting", "a", "b", "c"])?;

    let error = redis::cmd("LPUSH").arg("list").arg("x").query::<()>(writer).unwrap_err();
    assert!(error.to_string().contains("unknown command 'LPUSH'"), "{error}");
    // After an error the connection is as good as before.
    redis::cmd("PING").query::<String>(writer).map(|answer| assert_eq!(answer, "PONG"))
}
