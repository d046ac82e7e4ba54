;; Changes every state that it can, and answers the sum of what it found: "1" in a fresh instance.
(module
  (memory (export "memory") 3 40)
  (global $calls (mut i32) (i32.const 0))
  ;; The contract's record: magic, version 1, the area at 64 KiB, of 64 KiB.
  (data (i32.const 64) "MDGE\01\00\00\00\00\00\01\00\00\00\01\00")
  ;; The response: status 200, no header, body of one byte at 3104.
  (data (i32.const 1024) "\c8\00\00\00\00\00\00\00\00\00\00\00\20\0c\00\00\01\00\00\00")
  (func (export "midge_contract") (result i32) (i32.const 64))
  (func (export "midge_handle") (param $request i32) (param $size i32) (result i32)
    (local $page i32) (local $found i32)
    (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
    (local.set $found (i32.add (global.get $calls) (i32.sub (memory.size) (i32.const 3))))
    ;; A cell in every fourth page of the last 64 KiB; which one comes first depends on the request's size.
    (local.set $page (i32.const 131072))
    (loop $next
      (local.set $found (i32.add (local.get $found) (i32.load (local.get $page))))
      (i32.store (local.get $page) (i32.const 1))
      (local.set $page (i32.add (local.get $page) (i32.const 16384)))
      (br_if $next (i32.lt_u (local.get $page) (i32.const 196608))))
    ;; Grows, and writes there if it may.
    (if (i32.ne (memory.grow (i32.const 2)) (i32.const -1))
      (then (i32.store (i32.const 196608) (i32.const 1))))
    (i32.store8 (i32.const 3104) (i32.add (i32.const 48) (local.get $found)))
    (i32.const 1024)))
