"""User metrics of a community from its users and events: complete, restartable at any instant, every loop bounded.

    source   rows out of CSV files, SQLite or a database URL, after a position
    check    a row is accepted or rejected with a reason
    state    what is kept between runs: one SQLite file, one transaction per batch
    define   the relational metrics: one SQLAlchemy statement each, the same for every engine
    graph    the graph metrics: bounded algorithms on integer arrays
    publish  results as Prometheus text, replaced in one step
    run      one run from the lock to the snapshot
    main     the command line

Nothing here calls itself, directly or in a circle; a test holds that.
"""
