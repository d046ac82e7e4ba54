;; Reads and writes piece by piece, well or badly, as the query's first letter says.
(module
  (import "midge" "body_read" (func $read (param i32 i32) (result i32)))
  (import "midge" "response_start" (func $start (param i32)))
  (import "midge" "response_write" (func $write (param i32 i32)))
  (import "midge" "sleep_ns" (func $sleep (param i64)))
  (import "midge" "trailers_read" (func $trailers (param i32 i32 i32) (result i32)))
  (import "midge" "trailers_write" (func $end (param i32 i32 i32) (result i32)))
  (memory (export "memory") 3)
  ;; The contract's record: magic, version 1, the area at 64 KiB, of 64 KiB.
  (data (i32.const 64) "MDGE\01\00\00\00\00\00\01\00\00\00\01\00")
  ;; 1024: a response of 200 with `content-length: 5` and no body.
  (data (i32.const 1024) "\c8\00\00\00\01\00\00\00\00\08\00\00\00\00\00\00\00\00\00\00")
  (data (i32.const 2048) "\00\0c\00\00\0e\00\00\00\10\0c\00\00\01\00\00\00")
  (data (i32.const 3072) "content-length\00\005")
  ;; 1088: 200, without headers, its body `begun` at 3104.
  (data (i32.const 1088) "\c8\00\00\00\00\00\00\00\00\00\00\00\20\0c\00\00\05\00\00\00")
  (data (i32.const 3104) "begun, and more")
  ;; 1152: an error with that text.
  (data (i32.const 1152) "\00\00\01\00\00\00\00\00\00\00\00\00\20\0c\00\00\05\00\00\00")
  ;; 1216: a row of fields, `x-end: 1`; then one that is the host's, `upgrade: 1`, and one beyond the memory.
  (data (i32.const 1216) "\50\0c\00\00\05\00\00\00\5c\0c\00\00\01\00\00\00")
  (data (i32.const 1232) "\60\0c\00\00\07\00\00\00\5c\0c\00\00\01\00\00\00")
  (data (i32.const 1248) "\50\0c\00\00\05\00\00\00\ff\ff\02\00\02\00\00\00")
  (data (i32.const 3152) "x-end\00\00\00\00\00\00\001\00\00\00upgrade")
  (data (i32.const 3176) "early")
  (func (export "midge_contract") (result i32) (i32.const 64))
  (func (export "midge_handle") (param $request i32) (param $size i32) (result i32)
    (local $letter i32)
    (if (i32.load offset=52 (local.get $request)) (then
      (local.set $letter (i32.load8_u
        (i32.add (local.get $request) (i32.load offset=48 (local.get $request)))))))
    ;; l: lazy. Rests before it reads, byte by byte, and answers with `begun` when all has come.
    (if (i32.eq (local.get $letter) (i32.const 0x6c)) (then
      (call $sleep (i64.const 400000000))
      (loop $more (br_if $more (call $read (i32.const 131072) (i32.const 65536))))
      (return (i32.const 1088))))
    ;; n: never reads the body that comes.
    (if (i32.eq (local.get $letter) (i32.const 0x6e)) (then (return (i32.const 1088))))
    ;; h: hangs about for an hour.
    (if (i32.eq (local.get $letter) (i32.const 0x68)) (then
      (call $sleep (i64.const 3600000000000))
      (return (i32.const 1088))))
    ;; r: reads, then answers.
    (if (i32.eq (local.get $letter) (i32.const 0x72)) (then
      (loop $more (br_if $more (call $read (i32.const 131072) (i32.const 65536))))
      (return (i32.const 1088))))
    ;; t: writes more than it told.
    (if (i32.eq (local.get $letter) (i32.const 0x74)) (then
      (call $start (i32.const 1024))
      (call $write (i32.const 3104) (i32.const 10))
      (return (i32.const 0))))
    ;; s: writes less than it told.
    (if (i32.eq (local.get $letter) (i32.const 0x73)) (then
      (call $start (i32.const 1024))
      (call $write (i32.const 3104) (i32.const 3))
      (return (i32.const 0))))
    ;; w: writes without a head.
    (if (i32.eq (local.get $letter) (i32.const 0x77)) (then
      (call $write (i32.const 3104) (i32.const 3))
      (return (i32.const 0))))
    ;; 2: starts twice.
    (if (i32.eq (local.get $letter) (i32.const 0x32)) (then
      (call $start (i32.const 1088))
      (call $start (i32.const 1088))
      (return (i32.const 0))))
    ;; x: traps in the middle.
    (if (i32.eq (local.get $letter) (i32.const 0x78)) (then
      (call $start (i32.const 1088))
      (unreachable)))
    ;; e: reports an error in the middle.
    (if (i32.eq (local.get $letter) (i32.const 0x65)) (then
      (call $start (i32.const 1088))
      (return (i32.const 1152))))
    ;; a: answers a second time in the middle.
    (if (i32.eq (local.get $letter) (i32.const 0x61)) (then
      (call $start (i32.const 1088))
      (return (i32.const 1088))))
    ;; b: reads to beyond its memory.
    (if (i32.eq (local.get $letter) (i32.const 0x62)) (then
      (drop (call $read (i32.const 196600) (i32.const 65536)))
      (return (i32.const 1088))))
    ;; m: starts with a record beyond its memory.
    (if (i32.eq (local.get $letter) (i32.const 0x6d)) (then
      (call $start (i32.const 196600))
      (return (i32.const 0))))
    ;; f: writes for ever.
    (if (i32.eq (local.get $letter) (i32.const 0x66)) (then
      (call $start (i32.const 1088))
      (loop $more (call $write (i32.const 131072) (i32.const 65536)) (br $more))))
    ;; c: computes for ever after it has begun.
    (if (i32.eq (local.get $letter) (i32.const 0x63)) (then
      (call $start (i32.const 1088))
      (loop $more (br $more))))
    ;; z: sleeps for no time, for ever.
    (if (i32.eq (local.get $letter) (i32.const 0x7a)) (then
      (loop $more (call $sleep (i64.const 0)) (br $more))))
    ;; p: passes on what came behind the body, as the host lays it out, and ends with fields of its own.
    (if (i32.eq (local.get $letter) (i32.const 0x70)) (then
      (if (i32.eq (call $trailers (i32.const 0) (i32.const 131072) (i32.const 65536)) (i32.const -1)) (then
        (call $start (i32.const 1088))
        (call $write (i32.const 3176) (i32.const 5))))
      (loop $more (br_if $more (call $read (i32.const 131072) (i32.const 65536))))
      ;; A region that is too small for them is an error.
      (if (i32.eq (call $trailers (i32.const 0) (i32.const 131072) (i32.const 8)) (i32.const -28)) (then
        (call $start (i32.const 1088))
        (call $write (i32.const 131072)
          (call $trailers (i32.const 0) (i32.const 131072) (i32.const 65536)))
        (drop (call $end (i32.const 0) (i32.const 1216) (i32.const 1)))
        (return (i32.const 0))))
      (return (i32.const 1088))))
    ;; o: ends a body with fields although its length was told.
    (if (i32.eq (local.get $letter) (i32.const 0x6f)) (then
      (call $start (i32.const 1024))
      (call $write (i32.const 3104) (i32.const 5))
      (drop (call $end (i32.const 0) (i32.const 1216) (i32.const 1)))
      (return (i32.const 0))))
    ;; g: ends its body with a field.
    (if (i32.eq (local.get $letter) (i32.const 0x67)) (then
      (call $start (i32.const 1088))
      (drop (call $end (i32.const 0) (i32.const 1216) (i32.const 1)))
      (return (i32.const 0))))
    ;; i: writes after the end.
    (if (i32.eq (local.get $letter) (i32.const 0x69)) (then
      (call $start (i32.const 1088))
      (drop (call $end (i32.const 0) (i32.const 1216) (i32.const 1)))
      (call $write (i32.const 3104) (i32.const 5))
      (return (i32.const 0))))
    ;; u: ends twice.
    (if (i32.eq (local.get $letter) (i32.const 0x75)) (then
      (call $start (i32.const 1088))
      (drop (call $end (i32.const 0) (i32.const 1216) (i32.const 1)))
      (drop (call $end (i32.const 0) (i32.const 1216) (i32.const 1)))
      (return (i32.const 0))))
    ;; j: ends what has not begun.
    (if (i32.eq (local.get $letter) (i32.const 0x6a)) (then
      (drop (call $end (i32.const 0) (i32.const 1216) (i32.const 1)))
      (return (i32.const 0))))
    ;; k, 5, y, d: ends with a field that is the host's; beyond the memory; too many; of a handle that names nothing.
    (if (i32.eq (local.get $letter) (i32.const 0x6b)) (then
      (call $start (i32.const 1088))
      (drop (call $end (i32.const 0) (i32.const 1216) (i32.const 2)))
      (return (i32.const 0))))
    (if (i32.eq (local.get $letter) (i32.const 0x35)) (then
      (call $start (i32.const 1088))
      (drop (call $end (i32.const 0) (i32.const 1248) (i32.const 1)))
      (return (i32.const 0))))
    (if (i32.eq (local.get $letter) (i32.const 0x79)) (then
      (call $start (i32.const 1088))
      (drop (call $end (i32.const 0) (i32.const 1216) (i32.const 65)))
      (return (i32.const 0))))
    (if (i32.eq (local.get $letter) (i32.const 0x64)) (then
      (call $start (i32.const 1088))
      (drop (call $end (i32.const 7) (i32.const 1216) (i32.const 1)))
      (return (i32.const 0))))
    (i32.const 0)))
