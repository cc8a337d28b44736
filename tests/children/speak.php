<?php
// speak.php JOURNAL FIXED: a job in PHP that says where it stands; record c kills it. Runs without Mainstay too.
[, $journal, $fixed] = $argv;
$lines = fn($path) => $path && is_file($path) ? file($path, FILE_IGNORE_NEW_LINES) : [];
$say = fn($text) => file_put_contents(getenv('MAINSTAY_PROGRESS') ?: '/dev/null', $text);
$only = getenv('MAINSTAY_ONLY');
$leave = array_merge($lines(getenv('MAINSTAY_SKIP')), $lines($journal));
$n = 0;
foreach (['a', 'b', 'c', 'd', 'e'] as $key) {
    if (($only && $key !== $only) || in_array($key, $leave, true)) {
        continue;
    }
    $say("records $n\nprogress $n 5 letters\nrecord $key\n");
    if ($key === 'c' && !file_exists($fixed)) {
        throw new RuntimeException("no such letter");
    }
    file_put_contents($journal, "$key\n", FILE_APPEND);
    $n++;
    $say("records $n\nprogress $n 5 letters\n");
}
