;; Puts the number of the line in front of it, as far as it can count: its counter is in memory and global.
;; A line that begins with # is dropped; one with !t traps, one with !l does not end.
(module
  (memory (export "memory") 3)
  (global $lines (mut i32) (i32.const 0))
  ;; The contract's record: magic, version 1, the area at 64 KiB, of 64 KiB.
  (data (i32.const 64) "MDGE\01\00\00\00\00\00\01\00\00\00\01\00")
  (func (export "midge_contract") (result i32) (i32.const 64))
  ;; Writes the response's record at 1024: status, no headers, body.
  (func $respond (param $status i32) (param $body i32) (param $size i32) (result i32)
    (i32.store (i32.const 1024) (local.get $status))
    (i32.store (i32.const 1028) (i32.const 0))
    (i32.store (i32.const 1032) (i32.const 0))
    (i32.store (i32.const 1036) (local.get $body))
    (i32.store (i32.const 1040) (local.get $size))
    (i32.const 1024))
  (func (export "midge_handle") (param $request i32) (param $size i32) (result i32)
    (local $body i32) (local $bytes i32)
    (local.set $body (i32.add (local.get $request) (i32.load offset=64 (local.get $request))))
    (local.set $bytes (i32.load offset=68 (local.get $request)))
    (global.set $lines (i32.add (global.get $lines) (i32.const 1)))
    (i32.store (i32.const 2048) (i32.add (i32.load (i32.const 2048)) (i32.const 1)))
    (if (i32.eq (i32.load8_u (local.get $body)) (i32.const 35)) ;; #
      (then (return (call $respond (i32.const 204) (i32.const 0) (i32.const 0)))))
    (if (i32.eq (i32.load16_u (local.get $body)) (i32.const 0x7421)) (then unreachable)) ;; !t
    (if (i32.eq (i32.load16_u (local.get $body)) (i32.const 0x6c21)) ;; !l
      (then (loop $for_ever (br $for_ever))))
    ;; The number: the larger of both counters, one digit.
    (i32.store8 (i32.const 4096) (i32.add (i32.const 48)
      (select (global.get $lines) (i32.load (i32.const 2048))
        (i32.gt_u (global.get $lines) (i32.load (i32.const 2048))))))
    (i32.store8 (i32.const 4097) (i32.const 32))
    (memory.copy (i32.const 4098) (local.get $body) (local.get $bytes))
    (call $respond (i32.const 200) (i32.const 4096) (i32.add (local.get $bytes) (i32.const 2)))))
