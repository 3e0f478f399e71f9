-- A campaign that the first version of Primevo trained (revision 0002 of the schema) and that was
-- interrupted after 15 of its 24 candidates: seed programs transformer and switch, 4 + 8 steps.
BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0002');
CREATE TABLE campaigns (
	id INTEGER NOT NULL, 
	name VARCHAR(200) NOT NULL, 
	config TEXT NOT NULL, 
	seed BIGINT NOT NULL, 
	created_at FLOAT NOT NULL, 
	finished_at FLOAT, 
	stop_requested BOOLEAN NOT NULL, 
	heartbeat JSON, 
	CONSTRAINT pk_campaigns PRIMARY KEY (id), 
	CONSTRAINT uq_campaigns_name UNIQUE (name)
);
INSERT INTO "campaigns" VALUES(1,'first','{"name":"first","seed":0,"task":{"data":{"source":"sotu","files":[],"name":"lm1b","tokenizer":"bytes","vocabulary":4096,"max_documents":40},"model":{"d_model":16,"layers":2,"sequence_length":16,"other":"transformer"},"optimizer":{"name":"adamw","learning_rate":0.002,"warmup_steps":10,"weight_decay":0.0,"beta_1":0.9,"beta_2":0.99,"clip_norm":1.0},"training":{"batch_size":4,"eval_batches":2,"backend":"tensorflow","objective":"next_token","capacity_factor":null,"routing":null,"precision":"auto","jit":"auto"}},"search":{"seeds":["transformer","switch"],"every":1,"population":6,"tournament":3,"candidates":24,"mutations":{"delete":0.16666666666666666,"insert":0.16666666666666666,"delete_insert":0.16666666666666666,"field":0.16666666666666666,"swap":0.16666666666666666,"bank":0.16666666666666666},"budget":{"unit":"steps","base":4.0,"hurdles":1},"limits":{"max_instructions":120,"parameters_min":0.5,"parameters_max":20.0,"flops_max":null},"final":{"top":1,"seeds":2,"budget":1.0}},"workers":{"count":1,"cpus_per_worker":null,"gpus_per_worker":null,"memory_limit_mb":null,"address":null,"timeout_factor":3.0,"setup_allowance_s":120.0,"timeout_s":3600.0,"jobs_per_worker":200,"spare":true},"storage":"sqlite:///primevo.db","weights":"primevo-weights"}',0,1.79556613864074492451e+09,NULL,0,'{"at": 1795566160.2764852, "running": 0, "capacity": 1, "waiting": "", "eta_s": 21.035602406061596, "host": "vm", "pid": 11055}');
CREATE TABLE candidates (
	campaign_id INTEGER NOT NULL, 
	id INTEGER NOT NULL, 
	parent_id INTEGER, 
	mutation VARCHAR(40) NOT NULL, 
	hash VARCHAR(64) NOT NULL, 
	duplicate_of INTEGER, 
	rejections JSON NOT NULL, 
	dna TEXT NOT NULL, 
	created_at FLOAT NOT NULL, 
	CONSTRAINT pk_candidates PRIMARY KEY (campaign_id, id), 
	CONSTRAINT fk_candidates_campaign_id FOREIGN KEY(campaign_id) REFERENCES campaigns (id), 
	CONSTRAINT fk_candidates_parent_id FOREIGN KEY(campaign_id, parent_id) REFERENCES candidates (campaign_id, id), 
	CONSTRAINT fk_candidates_duplicate_of FOREIGN KEY(campaign_id, duplicate_of) REFERENCES candidates (campaign_id, id)
);
INSERT INTO "candidates" VALUES(1,1,NULL,'seed','38e0e104f41d2e50d3b6680a2e2fd06c',NULL,'{}','dims d0=8 d1=1 d2=32
constants c0=0.0 c1=0.25 c2=1e-06

main(x, y):
  normed = layer_norm(x)
  heads = self_attention(normed) branch=8
  mixed = CONV 1X1(heads) dim=d0
  attended = residual(x, mixed)
  renormed = layer_norm(attended)
  fed = feed_forward(renormed)
  out = residual(attended, fed)

self_attention(x, y):
  query = multi_head_projection(x)
  key = multi_head_projection(x)
  value = multi_head_projection(x)
  scaled = C MUL(query) constant=c1
  scores = T-MAT MUL(scaled, key)
  weights = softmax(scores)
  out = MAT MUL(weights, value)

feed_forward(x, y):
  wide = CONV 1X1(x) dim=d2
  active = relu(wide)
  out = CONV 1X1(active) dim=d0

multi_head_projection(x, y):
  out = CONV 1X1(x) dim=d1

softmax(x, y):
  exponential = EXP(x)
  visible = MASK(exponential)
  total = RED SUM(visible)
  out = DIVIDE(visible, total)

layer_norm(x, y):
  standard = z_score(x)
  out = scale_shift(standard)

z_score(x, y):
  mean = RED MEAN(x)
  centred = DIFFERENCE(x, mean)
  squares = SQUARE(centred)
  variance = RED MEAN(squares)
  floored = MAX(variance) constant=c2
  deviation = ABS ROOT(floored)
  out = DIVIDE(centred, deviation)

scale_shift(x, y):
  scaled = SCALE(x)
  out = SHIFT(scaled)

residual(x, y):
  out = ADD(x, y)

relu(x, y):
  out = MAX(x) constant=c0
',1.79556613866452789308e+09);
INSERT INTO "candidates" VALUES(1,2,NULL,'seed','dc16cc50852941f9fa19590d5266eca6',NULL,'{}','dims d0=8 d1=1 d2=32
constants c0=0.0 c1=0.25 c2=1e-06 c3=0.01
counts n0=8 n1=1

main(x, y):
  normed = layer_norm(x)
  heads = self_attention(normed) branch=8
  mixed = CONV 1X1(heads) dim=d0
  attended = residual(x, mixed)
  renormed = layer_norm(attended)
  fed = feed_forward(renormed)
  out = residual(attended, fed)

self_attention(x, y):
  query = CONV 1X1(x) dim=d1
  key = CONV 1X1(x) dim=d1
  value = CONV 1X1(x) dim=d1
  scaled = C MUL(query) constant=c1
  scores = T-MAT MUL(scaled, key)
  visible = MASK(scores)
  weights = softmax(visible)
  out = MAT MUL(weights, value)

feed_forward(x, y):
  gates = router(x)
  out = expert(x, gates) branch=routed

router(x, y):
  scores = SCORE(x) count=n0
  chances = softmax(scores)
  chosen = TOP_K(chances) count=n1
  out = SWITCH_LOSS(chosen, chances) constant=c3

expert(x, y):
  wide = CONV 1X1(x) dim=d2
  active = squared_relu(wide)
  out = CONV 1X1(active) dim=d0

squared_relu(x, y):
  rectified = MAX(x) constant=c0
  out = SQUARE(rectified)

softmax(x, y):
  exponential = EXP(x)
  total = RED SUM(exponential)
  out = DIVIDE(exponential, total)

layer_norm(x, y):
  mean = RED MEAN(x)
  centred = DIFFERENCE(x, mean)
  squares = SQUARE(centred)
  variance = RED MEAN(squares)
  floored = MAX(variance) constant=c2
  deviation = ABS ROOT(floored)
  standard = DIVIDE(centred, deviation)
  scaled = SCALE(standard)
  out = SHIFT(scaled)

residual(x, y):
  out = ADD(x, y)
',1.79556613866452789308e+09);
INSERT INTO "candidates" VALUES(1,3,1,'bank','f684ac0236e71ea77ef6d4b5d40c417b',NULL,'{}','dims d0=8 d1=1 d2=32
constants c0=0.0 c1=0.0765565 c2=1e-06

main(x, y):
  normed = layer_norm(x)
  heads = self_attention(normed) branch=8
  mixed = CONV 1X1(heads) dim=d0
  attended = residual(x, mixed)
  renormed = layer_norm(attended)
  fed = feed_forward(renormed)
  out = residual(attended, fed)

self_attention(x, y):
  query = multi_head_projection(x)
  key = multi_head_projection(x)
  value = multi_head_projection(x)
  scaled = C MUL(query) constant=c1
  scores = T-MAT MUL(scaled, key)
  weights = softmax(scores)
  out = MAT MUL(weights, value)

feed_forward(x, y):
  wide = CONV 1X1(x) dim=d2
  active = relu(wide)
  out = CONV 1X1(active) dim=d0

multi_head_projection(x, y):
  out = CONV 1X1(x) dim=d1

softmax(x, y):
  exponential = EXP(x)
  visible = MASK(exponential)
  total = RED SUM(visible)
  out = DIVIDE(visible, total)

layer_norm(x, y):
  standard = z_score(x)
  out = scale_shift(standard)

z_score(x, y):
  mean = RED MEAN(x)
  centred = DIFFERENCE(x, mean)
  squares = SQUARE(centred)
  variance = RED MEAN(squares)
  floored = MAX(variance) constant=c2
  deviation = ABS ROOT(floored)
  out = DIVIDE(centred, deviation)

scale_shift(x, y):
  scaled = SCALE(x)
  out = SHIFT(scaled)

residual(x, y):
  out = ADD(x, y)

relu(x, y):
  out = MAX(x) constant=c0
',1.79556614714322161675e+09);
INSERT INTO "candidates" VALUES(1,4,1,'insert','e245549ba0839c4c6c915ebcab01c52e',NULL,'{"feature axes differ": 1}','dims d0=8 d1=1 d2=32
constants c0=0.0 c1=0.25 c2=1e-06

main(x, y):
  normed = layer_norm(x)
  heads = self_attention(normed) branch=8
  mixed = CONV 1X1(heads) dim=d0
  attended = residual(x, mixed)
  renormed = layer_norm(attended)
  fed = feed_forward(renormed)
  out = residual(attended, fed)

self_attention(x, y):
  query = multi_head_projection(x)
  key = multi_head_projection(x)
  value = multi_head_projection(x)
  scaled = C MUL(query) constant=c1
  scores = T-MAT MUL(scaled, key)
  weights = softmax(scores)
  out = MAT MUL(weights, value)

feed_forward(x, y):
  wide = CONV 1X1(x) dim=d2
  recip = RECIP(wide, y) dim=d1
  active = relu(recip, wide)
  out = CONV 1X1(active) dim=d0

multi_head_projection(x, y):
  out = CONV 1X1(x) dim=d1

softmax(x, y):
  exponential = EXP(x)
  visible = MASK(exponential)
  total = RED SUM(visible)
  out = DIVIDE(visible, total)

layer_norm(x, y):
  standard = z_score(x)
  out = scale_shift(standard)

z_score(x, y):
  mean = RED MEAN(x)
  centred = DIFFERENCE(x, mean)
  squares = SQUARE(centred)
  variance = RED MEAN(squares)
  floored = MAX(variance) constant=c2
  deviation = ABS ROOT(floored)
  out = DIVIDE(centred, deviation)

scale_shift(x, y):
  scaled = SCALE(x)
  out = SHIFT(scaled)

residual(x, y):
  out = ADD(x, y)

relu(x, y):
  out = MAX(x) constant=c0
',1.79556614788314485549e+09);
INSERT INTO "candidates" VALUES(1,5,1,'delete','1d18f34cb2803833c08dff519b95b7a7',NULL,'{"same function as the parent": 1}','dims d0=8 d1=1 d2=32
constants c0=0.0 c1=0.25 c2=1e-06

main(x, y):
  normed = layer_norm(x)
  heads = self_attention(normed) branch=8
  mixed = CONV 1X1(heads) dim=d0
  attended = residual(x, mixed)
  renormed = layer_norm(attended)
  fed = feed_forward(renormed)
  out = residual(attended, fed)

self_attention(x, y):
  query = multi_head_projection(x)
  key = multi_head_projection(x)
  value = multi_head_projection(x)
  scaled = C MUL(query) constant=c1
  scores = T-MAT MUL(scaled, key)
  weights = softmax(scores)
  out = MAT MUL(weights, value)

feed_forward(x, y):
  wide = CONV 1X1(x) dim=d2
  active = relu(wide)
  out = CONV 1X1(active) dim=d0

multi_head_projection(x, y):
  out = CONV 1X1(x) dim=d1

softmax(x, y):
  exponential = EXP(x)
  visible = MASK(exponential)
  total = RED SUM(visible)
  out = DIVIDE(visible, total)

layer_norm(x, y):
  standard = z_score(x)

z_score(x, y):
  mean = RED MEAN(x)
  centred = DIFFERENCE(x, mean)
  squares = SQUARE(centred)
  variance = RED MEAN(squares)
  floored = MAX(variance) constant=c2
  deviation = ABS ROOT(floored)
  out = DIVIDE(centred, deviation)

scale_shift(x, y):
  scaled = SCALE(x)
  out = SHIFT(scaled)

residual(x, y):
  out = ADD(x, y)

relu(x, y):
  out = MAX(x) constant=c0
',1.79556614865962553021e+09);
INSERT INTO "candidates" VALUES(1,6,1,'bank','b87cf7a559a41c4b7b467d9294613842',NULL,'{"MAT MUL needs its first input over key positions": 1}','dims d0=8 d1=1 d2=4
constants c0=0.0 c1=0.25 c2=1e-06

main(x, y):
  normed = layer_norm(x)
  heads = self_attention(normed) branch=8
  mixed = CONV 1X1(heads) dim=d0
  attended = residual(x, mixed)
  renormed = layer_norm(attended)
  fed = feed_forward(renormed)
  out = residual(attended, fed)

self_attention(x, y):
  query = multi_head_projection(x)
  key = multi_head_projection(x)
  value = multi_head_projection(x)
  scaled = C MUL(query) constant=c1
  scores = T-MAT MUL(scaled, key)
  weights = softmax(scores)
  out = MAT MUL(weights, value)

feed_forward(x, y):
  wide = CONV 1X1(x) dim=d2
  active = relu(wide)
  out = CONV 1X1(active) dim=d0

multi_head_projection(x, y):
  out = CONV 1X1(x) dim=d1

softmax(x, y):
  exponential = EXP(x)
  visible = MASK(exponential)
  total = RED SUM(visible)
  out = DIVIDE(visible, total)

layer_norm(x, y):
  standard = z_score(x)
  out = scale_shift(standard)

z_score(x, y):
  mean = RED MEAN(x)
  centred = DIFFERENCE(x, mean)
  squares = SQUARE(centred)
  variance = RED MEAN(squares)
  floored = MAX(variance) constant=c2
  deviation = ABS ROOT(floored)
  out = DIVIDE(centred, deviation)

scale_shift(x, y):
  scaled = SCALE(x)
  out = SHIFT(scaled)

residual(x, y):
  out = ADD(x, y)

relu(x, y):
  out = MAX(x) constant=c0
',1.79556614936623883246e+09);
INSERT INTO "candidates" VALUES(1,7,2,'field','897101a9ea53c800705c8e06c83f164c',NULL,'{}','dims d0=8 d1=1 d2=32
constants c0=0.0 c1=0.25 c2=1e-06 c3=0.01
counts n0=8 n1=1

main(x, y):
  normed = layer_norm(x)
  heads = self_attention(normed) branch=8
  mixed = CONV 1X1(heads) dim=d0
  attended = residual(x, mixed)
  renormed = layer_norm(attended)
  fed = feed_forward(renormed)
  out = residual(attended, fed)

self_attention(x, y):
  query = CONV 1X1(x) dim=d1
  key = CONV 1X1(x) dim=d1
  value = CONV 1X1(x) dim=d1
  scaled = C MUL(query) constant=c1
  scores = T-MAT MUL(scaled, key)
  visible = MASK(scores)
  weights = softmax(visible)
  out = MAT MUL(weights, value)

feed_forward(x, y):
  gates = router(x)
  out = expert(x, gates) branch=routed

router(x, y):
  scores = SCORE(x) count=n0
  chances = softmax(scores)
  chosen = TOP_K(chances) count=n1
  out = SWITCH_LOSS(chosen, chances) constant=c3

expert(x, y):
  wide = CONV 1X1(x) dim=d2
  active = squared_relu(wide)
  out = CONV 1X1(active) dim=d0

squared_relu(x, y):
  rectified = MAX(x) constant=c0
  out = SQUARE(rectified)

softmax(x, y):
  exponential = C MUL(x) constant=c0
  total = RED SUM(exponential)
  out = DIVIDE(exponential, total)

layer_norm(x, y):
  mean = RED MEAN(x)
  centred = DIFFERENCE(x, mean)
  squares = SQUARE(centred)
  variance = RED MEAN(squares)
  floored = MAX(variance) constant=c2
  deviation = ABS ROOT(floored)
  standard = DIVIDE(centred, deviation)
  scaled = SCALE(standard)
  out = SHIFT(scaled)

residual(x, y):
  out = ADD(x, y)
',1.79556615004863595963e+09);
INSERT INTO "candidates" VALUES(1,8,1,'delete','1d18f34cb2803833c08dff519b95b7a7',5,'{}','dims d0=8 d1=1 d2=32
constants c0=0.0 c1=0.25 c2=1e-06

main(x, y):
  normed = layer_norm(x)
  heads = self_attention(normed) branch=8
  mixed = CONV 1X1(heads) dim=d0
  attended = residual(x, mixed)
  renormed = layer_norm(attended)
  fed = feed_forward(renormed)
  out = residual(attended, fed)

self_attention(x, y):
  query = multi_head_projection(x)
  key = multi_head_projection(x)
  value = multi_head_projection(x)
  scaled = C MUL(query) constant=c1
  scores = T-MAT MUL(scaled, key)
  weights = softmax(scores)
  out = MAT MUL(weights, value)

feed_forward(x, y):
  wide = CONV 1X1(x) dim=d2
  active = relu(wide)
  out = CONV 1X1(active) dim=d0

multi_head_projection(x, y):
  out = CONV 1X1(x) dim=d1

softmax(x, y):
  exponential = EXP(x)
  visible = MASK(exponential)
  total = RED SUM(visible)
  out = DIVIDE(visible, total)

layer_norm(x, y):
  standard = z_score(x)

z_score(x, y):
  mean = RED MEAN(x)
  centred = DIFFERENCE(x, mean)
  squares = SQUARE(centred)
  variance = RED MEAN(squares)
  floored = MAX(variance) constant=c2
  deviation = ABS ROOT(floored)
  out = DIVIDE(centred, deviation)

scale_shift(x, y):
  scaled = SCALE(x)
  out = SHIFT(scaled)

residual(x, y):
  out = ADD(x, y)

relu(x, y):
  out = MAX(x) constant=c0
',1.79556615191953659058e+09);
INSERT INTO "candidates" VALUES(1,9,3,'field','206e772773453347885bf52ba0310b15',NULL,'{}','dims d0=8 d1=1 d2=32
constants c0=0.0 c1=0.0765565 c2=1e-06

main(x, y):
  normed = layer_norm(x)
  heads = self_attention(normed) branch=8
  mixed = CONV 1X1(heads) dim=d0
  attended = residual(x, mixed)
  renormed = layer_norm(attended)
  fed = feed_forward(renormed)
  out = residual(attended, fed)

self_attention(x, y):
  query = multi_head_projection(x)
  key = multi_head_projection(x)
  value = multi_head_projection(x)
  scaled = C MUL(query) constant=c1
  scores = T-MAT MUL(scaled, key)
  weights = softmax(scores)
  out = MAT MUL(weights, value)

feed_forward(x, y):
  wide = CONV 1X1(x) dim=d2
  active = relu(wide)
  out = CONV 1X1(active) dim=d0

multi_head_projection(x, y):
  out = CONV 1X1(x) dim=d1

softmax(x, y):
  exponential = EXP(x)
  visible = MASK(exponential)
  total = RED SUM(visible)
  out = DIVIDE(visible, total)

layer_norm(x, y):
  standard = z_score(x)
  out = scale_shift(standard)

z_score(x, y):
  mean = RED MEAN(x)
  centred = DIFFERENCE(x, mean)
  squares = SQUARE(centred)
  variance = RED MEAN(squares)
  floored = MAX(variance) constant=c2
  deviation = ABS ROOT(floored)
  out = DIVIDE(centred, deviation)

scale_shift(x, y):
  scaled = SCALE(x)
  out = SHIFT(scaled)

residual(x, y):
  out = ADD(y, y)

relu(x, y):
  out = MAX(x) constant=c0
',1.79556615191953659058e+09);
INSERT INTO "candidates" VALUES(1,10,3,'swap','6e192ecf1aea05926e0db41463172816',NULL,'{}','dims d0=8 d1=1 d2=32
constants c0=0.0 c1=0.0765565 c2=1e-06

main(x, y):
  normed = layer_norm(x)
  heads = self_attention(normed) branch=8
  mixed = CONV 1X1(heads) dim=d0
  attended = layer_norm(x, mixed)
  renormed = residual(attended)
  fed = feed_forward(renormed)
  out = residual(attended, fed)

self_attention(x, y):
  query = multi_head_projection(x)
  key = multi_head_projection(x)
  value = multi_head_projection(x)
  scaled = C MUL(query) constant=c1
  scores = T-MAT MUL(scaled, key)
  weights = softmax(scores)
  out = MAT MUL(weights, value)

feed_forward(x, y):
  wide = CONV 1X1(x) dim=d2
  active = relu(wide)
  out = CONV 1X1(active) dim=d0

multi_head_projection(x, y):
  out = CONV 1X1(x) dim=d1

softmax(x, y):
  exponential = EXP(x)
  visible = MASK(exponential)
  total = RED SUM(visible)
  out = DIVIDE(visible, total)

layer_norm(x, y):
  standard = z_score(x)
  out = scale_shift(standard)

z_score(x, y):
  mean = RED MEAN(x)
  centred = DIFFERENCE(x, mean)
  squares = SQUARE(centred)
  variance = RED MEAN(squares)
  floored = MAX(variance) constant=c2
  deviation = ABS ROOT(floored)
  out = DIVIDE(centred, deviation)

scale_shift(x, y):
  scaled = SCALE(x)
  out = SHIFT(scaled)

residual(x, y):
  out = ADD(x, y)

relu(x, y):
  out = MAX(x) constant=c0
',1.79556615395297884943e+09);
INSERT INTO "candidates" VALUES(1,11,8,'insert','2bbca46fc435e697f103321772f390e3',NULL,'{"feature axes differ": 1, "MAT MUL over open key positions reads the future": 1}','dims d0=8 d1=1 d2=32
constants c0=0.0 c1=0.25 c2=1e-06

main(x, y):
  normed = layer_norm(x)
  heads = self_attention(normed) branch=8
  mixed = CONV 1X1(heads) dim=d0
  attended = residual(x, mixed)
  renormed = layer_norm(attended)
  fed = feed_forward(renormed)
  out = residual(attended, fed)

self_attention(x, y):
  query = multi_head_projection(x)
  key = multi_head_projection(x)
  value = multi_head_projection(x)
  scaled = C MUL(query) constant=c1
  scores = T-MAT MUL(scaled, key)
  weights = softmax(scores)
  out = MAT MUL(weights, value)
  dconv_3x1 = DCONV 3X1(out, value) constant=c1 dim=d1

feed_forward(x, y):
  wide = CONV 1X1(x) dim=d2
  active = relu(wide)
  out = CONV 1X1(active) dim=d0

multi_head_projection(x, y):
  out = CONV 1X1(x) dim=d1

softmax(x, y):
  exponential = EXP(x)
  visible = MASK(exponential)
  total = RED SUM(visible)
  out = DIVIDE(visible, total)

layer_norm(x, y):
  standard = z_score(x)

z_score(x, y):
  mean = RED MEAN(x)
  centred = DIFFERENCE(x, mean)
  squares = SQUARE(centred)
  variance = RED MEAN(squares)
  floored = MAX(variance) constant=c2
  deviation = ABS ROOT(floored)
  out = DIVIDE(centred, deviation)

scale_shift(x, y):
  scaled = SCALE(x)
  out = SHIFT(scaled)

residual(x, y):
  out = ADD(x, y)

relu(x, y):
  out = MAX(x) constant=c0
',1.79556615494352769853e+09);
INSERT INTO "candidates" VALUES(1,12,8,'swap','1beedabb43e6555ddb0570374546be4f',NULL,'{"T-MAT MUL contracts feature axes that differ": 1}','dims d0=8 d1=1 d2=32
constants c0=0.0 c1=0.25 c2=1e-06

main(x, y):
  normed = layer_norm(x)
  heads = self_attention(normed) branch=8
  mixed = residual(heads)
  attended = CONV 1X1(x, mixed) dim=d0
  renormed = layer_norm(attended)
  fed = feed_forward(renormed)
  out = residual(attended, fed)

self_attention(x, y):
  query = multi_head_projection(x)
  key = multi_head_projection(x)
  value = multi_head_projection(x)
  scaled = C MUL(query) constant=c1
  scores = T-MAT MUL(scaled, key)
  weights = softmax(scores)
  out = MAT MUL(weights, value)

feed_forward(x, y):
  wide = CONV 1X1(x) dim=d2
  active = relu(wide)
  out = CONV 1X1(active) dim=d0

multi_head_projection(x, y):
  out = CONV 1X1(x) dim=d1

softmax(x, y):
  exponential = EXP(x)
  visible = MASK(exponential)
  total = RED SUM(visible)
  out = DIVIDE(visible, total)

layer_norm(x, y):
  standard = z_score(x)

z_score(x, y):
  mean = RED MEAN(x)
  centred = DIFFERENCE(x, mean)
  squares = SQUARE(centred)
  variance = RED MEAN(squares)
  floored = MAX(variance) constant=c2
  deviation = ABS ROOT(floored)
  out = DIVIDE(centred, deviation)

scale_shift(x, y):
  scaled = SCALE(x)
  out = SHIFT(scaled)

residual(x, y):
  out = ADD(x, y)

relu(x, y):
  out = MAX(x) constant=c0
',1.79556615656058835982e+09);
INSERT INTO "candidates" VALUES(1,13,8,'delete_insert','d751e6edb434f155a68c95d0a70dc90e',NULL,'{"feature axes differ": 1, "MAT MUL needs its first input over key positions": 1, "same function as the parent": 1}','dims d0=8 d1=1 d2=32
constants c0=0.0 c1=0.25 c2=1e-06

main(x, y):
  normed = layer_norm(x)
  heads = self_attention(normed) branch=8
  mixed = CONV 1X1(heads) dim=d0
  attended = residual(x, mixed)
  renormed = layer_norm(attended)
  fed = feed_forward(renormed)
  out = residual(attended, fed)

self_attention(x, y):
  query = multi_head_projection(x)
  key = multi_head_projection(x)
  value = multi_head_projection(x)
  scaled = C MUL(query) constant=c1
  scores = T-MAT MUL(scaled, key)
  weights = softmax(scores)
  out = MAT MUL(weights, value)

feed_forward(x, y):
  wide = CONV 1X1(x) dim=d2
  active = relu(wide)
  out = CONV 1X1(active) dim=d0

multi_head_projection(x, y):
  out = CONV 1X1(x) dim=d1

softmax(x, y):
  exponential = EXP(x)
  visible = MASK(exponential)
  divide = DIVIDE(visible, y) constant=c1 dim=d2
  out = DIVIDE(divide, visible)

layer_norm(x, y):
  standard = z_score(x)

z_score(x, y):
  mean = RED MEAN(x)
  centred = DIFFERENCE(x, mean)
  squares = SQUARE(centred)
  variance = RED MEAN(squares)
  floored = MAX(variance) constant=c2
  deviation = ABS ROOT(floored)
  out = DIVIDE(centred, deviation)

scale_shift(x, y):
  scaled = SCALE(x)
  out = SHIFT(scaled)

residual(x, y):
  out = ADD(x, y)

relu(x, y):
  out = MAX(x) constant=c0
',1.79556615754910206799e+09);
INSERT INTO "candidates" VALUES(1,14,8,'delete_insert','0c29ac3b367808ea77767aef9aa5b73c',NULL,'{"weights over key positions would fix the sequence length": 1}','dims d0=8 d1=1 d2=32
constants c0=0.0 c1=0.25 c2=1e-06

main(x, y):
  normed = layer_norm(x)
  heads = self_attention(normed) branch=8
  mixed = CONV 1X1(heads) dim=d0
  attended = residual(x, mixed)
  renormed = layer_norm(attended)
  fed = feed_forward(renormed)
  out = residual(attended, fed)

self_attention(x, y):
  query = multi_head_projection(x)
  key = multi_head_projection(x)
  value = multi_head_projection(x)
  scaled = C MUL(query) constant=c1
  scores = T-MAT MUL(scaled, key)
  weights = softmax(scores)
  out = MAT MUL(weights, value)

feed_forward(x, y):
  wide = CONV 1X1(x) dim=d2
  active = relu(wide)
  out = CONV 1X1(active) dim=d0

multi_head_projection(x, y):
  out = CONV 1X1(x) dim=d1

softmax(x, y):
  exponential = EXP(x)
  visible = MASK(exponential)
  total = RED SUM(visible)
  out = DIVIDE(visible, total)

layer_norm(x, y):
  standard = z_score(x)

z_score(x, y):
  mean = RED MEAN(x)
  centred = DIFFERENCE(x, mean)
  squares = SQUARE(centred)
  variance = RED MEAN(squares)
  floored = MAX(variance) constant=c2
  deviation = ABS ROOT(floored)
  out = DIVIDE(centred, deviation)

scale_shift(x, y):
  scaled = SCALE(x)
  out = SHIFT(scaled)

residual(x, y):
  out = ADD(x, y)

relu(x, y):
  out = MAX(x) constant=c0
  dconv_7x1 = DCONV 7X1(out, x) constant=c1 dim=d1
',1.79556615850862288474e+09);
INSERT INTO "candidates" VALUES(1,15,9,'insert','c37c3052e8ee639768446af608d90adb',NULL,'{}','dims d0=8 d1=1 d2=32
constants c0=0.0 c1=0.0765565 c2=1e-06

main(x, y):
  normed = layer_norm(x)
  heads = self_attention(normed) branch=8
  mixed = CONV 1X1(heads) dim=d0
  attended = residual(x, mixed)
  renormed = layer_norm(attended)
  fed = feed_forward(renormed)
  out = residual(attended, fed)

self_attention(x, y):
  exp = EXP(x) dim=d2
  query = multi_head_projection(exp, x)
  key = multi_head_projection(x)
  value = multi_head_projection(x)
  scaled = C MUL(query) constant=c1
  scores = T-MAT MUL(scaled, key)
  weights = softmax(scores)
  out = MAT MUL(weights, value)

feed_forward(x, y):
  wide = CONV 1X1(x) dim=d2
  active = relu(wide)
  out = CONV 1X1(active) dim=d0

multi_head_projection(x, y):
  out = CONV 1X1(x) dim=d1

softmax(x, y):
  exponential = EXP(x)
  visible = MASK(exponential)
  total = RED SUM(visible)
  out = DIVIDE(visible, total)

layer_norm(x, y):
  standard = z_score(x)
  out = scale_shift(standard)

z_score(x, y):
  mean = RED MEAN(x)
  centred = DIFFERENCE(x, mean)
  squares = SQUARE(centred)
  variance = RED MEAN(squares)
  floored = MAX(variance) constant=c2
  deviation = ABS ROOT(floored)
  out = DIVIDE(centred, deviation)

scale_shift(x, y):
  scaled = SCALE(x)
  out = SHIFT(scaled)

residual(x, y):
  out = ADD(y, y)

relu(x, y):
  out = MAX(x) constant=c0
',1.7955661593520438671e+09);
CREATE TABLE evaluations (
	campaign_id INTEGER NOT NULL, 
	sequence INTEGER NOT NULL, 
	candidate_id INTEGER NOT NULL, 
	kind VARCHAR(8) NOT NULL, 
	seed BIGINT NOT NULL, 
	unit VARCHAR(8) NOT NULL, 
	amount FLOAT NOT NULL, 
	hurdles JSON NOT NULL, 
	hurdles_passed INTEGER NOT NULL, 
	outcome VARCHAR(16) NOT NULL, 
	reason TEXT NOT NULL, 
	val_loss FLOAT, 
	val_bpb FLOAT, 
	test_loss FLOAT, 
	test_bpb FLOAT, 
	params BIGINT, 
	flops_per_token BIGINT, 
	step_time_s FLOAT, 
	steps BIGINT NOT NULL, 
	tokens BIGINT NOT NULL, 
	train_seconds FLOAT NOT NULL, 
	setup_seconds FLOAT NOT NULL, 
	curve JSON NOT NULL, 
	worker VARCHAR(200), 
	finished_at FLOAT NOT NULL, active_params BIGINT, routing JSON, 
	CONSTRAINT pk_evaluations PRIMARY KEY (campaign_id, sequence), 
	CONSTRAINT fk_evaluations_campaign_id FOREIGN KEY(campaign_id) REFERENCES campaigns (id), 
	CONSTRAINT fk_evaluations_candidate_id FOREIGN KEY(campaign_id, candidate_id) REFERENCES candidates (campaign_id, id), 
	CONSTRAINT uq_evaluations_run UNIQUE (campaign_id, candidate_id, kind, seed)
);
INSERT INTO "evaluations" VALUES(1,1,1,'search',1639346027,'steps',12.0,'[[4.0, null]]',1,'completed','',5.290924072265625e+00,7.63318992077765656745e+00,NULL,NULL,10656,23976,2.45075466665412022848e-03,12,768,2.94090559998494427418e-02,8.40873228000191375031e-01,'[[4, 256, 0.011160691999975825, 5.891474723815918], [12, 768, 0.029409055999849443, 5.290924072265625]]','vm/11611',1.79556614550261330609e+09,10656,NULL);
INSERT INTO "evaluations" VALUES(1,2,2,'search',1644736318,'steps',12.0,'[[4.0, null]]',1,'completed','',5.4276218414306640625e+00,7.83040311445264336498e+00,NULL,NULL,39584,27924,4.62871591666195580233e-03,12,768,5.55445909999434661585e-02,1.56411179800011268525e+00,'[[4, 256, 0.026573948000077507, 5.976528167724609], [12, 768, 0.055544590999943466, 5.427621841430664]]','vm/11611',1.79556614714322161675e+09,10912,'{"used": 1.0, "unevenness": 0.4725901441450413, "max_violation": 2.5, "dropped": 0.0}');
INSERT INTO "evaluations" VALUES(1,3,3,'search',1615571855,'steps',12.0,'[[4.0, null]]',1,'completed','',5.00544834136962890625e+00,7.22133549951985109771e+00,NULL,NULL,10656,23976,2.96555758332791219097e-03,12,768,3.5586690999934944557e-02,6.90333328000178880756e-01,'[[4, 256, 0.012317690999907427, 5.7258405685424805], [12, 768, 0.035586690999934945, 5.005448341369629]]','vm/11611',1.79556614788314485549e+09,10656,NULL);
INSERT INTO "evaluations" VALUES(1,4,4,'search',1403367197,'steps',12.0,'[[4.0, null]]',1,'completed','',5.96758890151977539062e+00,8.60941091428659710516e+00,NULL,NULL,10656,24104,3.08056408334778097923e-03,12,768,3.69667690001733717508e-02,7.2731526599977769365e-01,'[[4, 256, 0.014673730000140495, 5.8800048828125], [12, 768, 0.03696676900017337, 5.967588901519775]]','vm/11611',1.79556614865962553021e+09,10656,NULL);
INSERT INTO "evaluations" VALUES(1,5,5,'search',704001510,'steps',12.0,'[[4.0, null]]',1,'completed','',5.0473690032958984375e+00,7.28181423059166288425e+00,NULL,NULL,10528,23848,2.7240354999851965588e-03,12,768,3.26884259998223569709e-02,6.61308583000163707765e-01,'[[4, 256, 0.011574707999898237, 5.518804550170898], [12, 768, 0.03268842599982236, 5.047369003295898]]','vm/11611',1.79556614936623883246e+09,10528,NULL);
INSERT INTO "evaluations" VALUES(1,6,6,'search',756395461,'steps',12.0,'[[4.0, 5.8800048828125]]',0,'completed','',6.0494060516357421875e+00,8.72744811101857,NULL,NULL,7072,16696,0.00242866224999716,4,256,0.00971464899998864,6.60706794999896374065e-01,'[[4, 256, 0.00971464899998864, 6.049406051635742]]','vm/11611',1.79556615004863595963e+09,7072,NULL);
INSERT INTO "evaluations" VALUES(1,7,7,'search',1216886579,'steps',12.0,'[[4.0, 5.885739803314209]]',0,'diverged','training loss is nan by step 4',NULL,NULL,NULL,NULL,39584,27924,5.18208875001846536179e-03,4,256,2.07283550000738614471e-02,1.82639795299996876565e+00,'[]','vm/11611',1.79556615191953659058e+09,10912,NULL);
INSERT INTO "evaluations" VALUES(1,8,8,'search',704001510,'steps',12.0,'[[4.0, null]]',1,'completed','',5.0473690032958984375e+00,7.28181423059166288425e+00,NULL,NULL,10528,23848,2.7240354999851965588e-03,12,768,3.26884259998223569709e-02,6.61308583000163707765e-01,'[[4, 256, 0.011574707999898237, 5.518804550170898], [12, 768, 0.03268842599982236, 5.047369003295898]]',NULL,1.79556615191953659058e+09,10528,NULL);
INSERT INTO "evaluations" VALUES(1,9,9,'search',682282940,'steps',12.0,'[[4.0, 5.885739803314209]]',1,'completed','',5.09515380859375,7.35075313222471837804e+00,NULL,NULL,10656,23976,3.30531983333533707289e-03,12,768,3.966383800002404314e-02,1.56270040000003973545e+00,'[[4, 256, 0.017883059000041612, 5.699321746826172], [12, 768, 0.03966383800002404, 5.09515380859375]]','vm/11611',1.79556615395297884943e+09,10656,NULL);
INSERT INTO "evaluations" VALUES(1,10,10,'search',1868837569,'steps',12.0,'[[4.0, 5.80292272567749]]',1,'completed','',5.06174612045288085937e+00,7.30255602621632071702e+00,NULL,NULL,8544,16804,1.80373274999586397267e-03,12,768,2.16447929999503685394e-02,9.56861219000074925133e-01,'[[4, 256, 0.008709033000059208, 5.592525959014893], [12, 768, 0.02164479299995037, 5.061746120452881]]','vm/11611',1.79556615494352769853e+09,8544,NULL);
INSERT INTO "evaluations" VALUES(1,11,11,'search',377659084,'steps',12.0,'[[4.0, 5.712581157684326]]',0,'completed','',5.78350543975830078125e+00,8.34383461689364480662e+00,NULL,NULL,10624,24040,3.02336499999000807292e-03,4,256,1.20934599999600322917e-02,1.59184071300001050985e+00,'[[4, 256, 0.012093459999960032, 5.783505439758301]]','vm/11611',1.79556615656058835982e+09,10624,NULL);
INSERT INTO "evaluations" VALUES(1,12,12,'search',340215325,'steps',12.0,'[[4.0, 5.741413593292236]]',0,'completed','',5.94857835769653320312e+00,8.58198449698820375886e+00,NULL,NULL,8992,17732,1.99923700000681492383e-03,4,256,0.00799694800002726,9.62767634999863730627e-01,'[[4, 256, 0.00799694800002726, 5.948578357696533]]','vm/11611',1.79556615754910206799e+09,8992,NULL);
INSERT INTO "evaluations" VALUES(1,13,13,'search',35327426,'steps',12.0,'[[4.0, 5.741413593292236]]',0,'completed','',5.9939861297607421875e+00,8.64749406456305358403e+00,NULL,NULL,10528,23848,4.05856424998773945844e-03,4,256,1.62342569999509578337e-02,9.29504200999872409738e-01,'[[4, 256, 0.016234256999950958, 5.993986129760742]]','vm/11611',1.79556615850862288474e+09,10528,NULL);
INSERT INTO "evaluations" VALUES(1,14,14,'search',327803001,'steps',12.0,'[[4.0, 5.866041898727417]]',1,'completed','',5.20414829254150390625e+00,7.50799893370039406192e+00,NULL,NULL,11424,25640,3.01514058332941203843e-03,12,768,3.61816869999529444612e-02,7.88867194000204108306e-01,'[[4, 256, 0.01260877699996854, 5.769044399261475], [12, 768, 0.036181686999952944, 5.204148292541504]]','vm/11611',1.7955661593520438671e+09,11424,NULL);
INSERT INTO "evaluations" VALUES(1,15,15,'search',889254221,'steps',12.0,'[[4.0, 5.776274919509888]]',1,'completed','',4.89603853225708,7.06349051048856857448e+00,NULL,NULL,10656,24008,3.16833283335427040583e-03,12,768,3.801999400025124487e-02,8.54608969999844703124e-01,'[[4, 256, 0.014692735000153334, 5.344675064086914], [12, 768, 0.038019994000251245, 4.89603853225708]]','vm/11611',1.79556616027603387834e+09,10656,NULL);
CREATE INDEX ix_evaluations_rank ON evaluations (campaign_id, kind, outcome, val_loss);
COMMIT;
