use proptest::prelude::*;

use super::*;

fn read_all(reader: &mut FrameReader) -> Result<Vec<Bytes>, FrameError> {
    std::iter::from_fn(|| reader.next_frame().transpose()).collect()
}

proptest! {
    #[test]
    fn frames_are_the_same_wherever_the_stream_is_split(
        contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut stream = Vec::new();
        contents.iter().for_each(|content| write_frame(&mut stream, content));
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        places.push(stream.len());
        places.sort_unstable();
        let mut reader = FrameReader::new(1_000);
        let (mut frames, mut from) = (Vec::new(), 0);
        for to in places {
            reader.feed(&stream[from..to]);
            frames.extend(read_all(&mut reader).expect("short frames"));
            from = to;
        }
        prop_assert_eq!(frames, contents);
        prop_assert!(reader.is_empty());
    }

    #[test]
    fn any_bytes_give_frames_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..500), limit in 0usize..300) {
        let mut reader = FrameReader::new(limit);
        reader.feed(&bytes);
        match read_all(&mut reader) {
            Ok(frames) => prop_assert!(frames.iter().all(|frame| frame.len() <= limit)),
            Err(error) => prop_assert!(error.length > limit && error.limit == limit),
        }
    }
}

#[test]
fn a_length_above_the_limit_is_an_error_before_its_content_comes() {
    let mut reader = FrameReader::new(10);
    reader.feed(&11u32.to_le_bytes());
    assert_eq!(reader.next_frame(), Err(FrameError { length: 11, limit: 10 }));
    let mut reader = FrameReader::new(usize::MAX);
    reader.feed(&u32::MAX.to_le_bytes());
    let limit = limits::MAX_FRAME_BYTES;
    assert_eq!(reader.next_frame(), Err(FrameError { length: u32::MAX as usize, limit }));
}

#[test]
fn a_frame_of_the_longest_length_passes() {
    let mut stream = Vec::new();
    write_frame(&mut stream, &vec![7; limits::MAX_FRAME_BYTES]);
    let mut reader = FrameReader::new(limits::MAX_FRAME_BYTES);
    for piece in stream.chunks(1 << 20) {
        assert_eq!(reader.next_frame(), Ok(None));
        reader.feed(piece);
    }
    assert_eq!(reader.next_frame().map(|frame| frame.map(|content| content.len())), Ok(Some(limits::MAX_FRAME_BYTES)));
}
